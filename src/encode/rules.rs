//! What becomes of single values on their way out, by the settings of their table.
//!
//! Compiled once per relation, when it is announced, so that a setting that does not fit the table
//! stops the stream before the first row. Rules touch values only, in `before` and `after` alike: a
//! key is written from the values as they are, since order and compaction hang on it.
//!
//! Columns are left out here even where the server was told not to send them: it applies the
//! publication as it stood when a change was made, which may be long ago.

use crate::change::Relation;
use crate::config::{Hidden, Resolved, TableSettings};

/// The rules of all tables.
#[derive(Debug, Clone, Default)]
pub struct ValueRules {
    tables: TableSettings,
}

/// Settings that do not fit a table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// A setting that keeps values back does not apply, and nobody may have noticed.
    #[error("publishing table {table}: {hidden}")]
    Hidden {
        /// `schema.table`.
        table: String,
        /// The setting.
        hidden: Hidden,
    },
}

impl RuleError {
    /// What an operator can do about it.
    #[must_use]
    pub fn fix(&self) -> String {
        match self {
            Self::Hidden { hidden, .. } => hidden.fix(),
        }
    }
}

/// What becomes of the values of one column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rule {
    /// Published as it is.
    Publish,
    /// Left out.
    LeaveOut,
}

impl ValueRules {
    /// The rules of a configuration.
    #[must_use]
    pub fn new(settings: &Resolved) -> Self {
        Self { tables: settings.tables.clone() }
    }

    /// One rule a column.
    pub(super) fn of(&self, relation: &Relation) -> Result<Vec<Rule>, RuleError> {
        let (schema, table) = (&relation.schema, &relation.table);
        if let Some(hidden) = self.tables.hidden(schema, table) {
            return Err(RuleError::Hidden { table: relation.full_name.clone(), hidden });
        }
        let filter = self.tables.columns(schema, table);
        let rule = |name: &str| match filter {
            Some(filter) if !filter.publishes(name) => Rule::LeaveOut,
            _ => Rule::Publish,
        };
        Ok(relation.columns.iter().map(|column| rule(&column.name)).collect())
    }
}
