//! What is wanted of the publications, and what changes for that: as data, and as SQL. Pure.
//!
//! Not here: which publication a table belongs to (`placing`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use postgres_protocol::escape::escape_identifier;

use super::limited::Limited;
use super::{Names, Publication, Published, TableName};
use crate::config::{Operation, SignalTable, TableFilter};

/// What should be published.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The publications' names, for statements that a DBA runs.
    pub names: Names<'a>,
    /// The tables.
    pub captured: &'a TableFilter,
    /// The operations to leave out.
    pub skipped: &'a [Operation],
    /// Whether changes of partitions are published as their root's.
    pub via_root: bool,
    /// The tables that are published only in part.
    pub published: &'a BTreeMap<TableName, Published>,
    /// The columns that row filters look at.
    pub conditions: &'a BTreeMap<TableName, Vec<String>>,
    /// The server's version, as `server_version_num`.
    pub server_version: u32,
    /// What may be done with the publication for inserts.
    pub inserts: Inserts,
    /// The table whose rows are signals, which is captured or not.
    pub signals: Option<&'a SignalTable>,
}

/// What may be done with the publication for inserts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserts {
    /// It may be created and altered, and the stream includes it.
    Used,
    /// It may be created and altered, but the stream does not name it yet: no table is added to it.
    Prepared,
    /// It may not be created or altered: it remains as it is.
    Untouched,
}

impl Wanted<'_> {
    /// Whether the server needs old rows: it then refuses to update or delete rows of tables
    /// without an identity.
    #[must_use]
    pub fn needs_identity(&self) -> bool {
        needs_identity(self.skipped)
    }

    pub(super) fn has(&self, table: &TableName) -> bool {
        let TableName { schema, name } = table;
        self.captured.matches(schema, name) || self.signals.is_some_and(|of| of.is(schema, name))
    }

    pub(super) fn operations(&self, of: &[Operation]) -> Vec<Operation> {
        of.iter().copied().filter(|operation| !self.skipped.contains(operation)).collect()
    }
}

/// Whether the server needs old rows if these operations are left out.
#[must_use]
pub fn needs_identity(skipped: &[Operation]) -> bool {
    [Operation::Update, Operation::Delete].iter().any(|needy| !skipped.contains(needy))
}

/// A table with what to publish of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableChange {
    /// The table.
    pub table: TableName,
    /// What to publish of it.
    pub published: Published,
}

impl TableChange {
    /// With ONLY, because otherwise the tables that inherit from it would be published too.
    fn sql(&self) -> String {
        let mut sql = only(&self.table);
        if let Some(columns) = &self.published.columns {
            let columns: Vec<String> =
                columns.iter().map(|column| escape_identifier(column)).collect();
            sql += &format!(" ({})", columns.join(", "));
        }
        if let Some(condition) = &self.published.condition {
            sql += &format!(" WHERE ({condition})");
        }
        sql
    }
}

fn only(table: &TableName) -> String {
    format!("ONLY {}", table.sql())
}

impl fmt::Display for TableChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.table)?;
        if let Some(columns) = &self.published.columns {
            write!(f, " ({})", columns.join(", "))?;
        }
        match &self.published.condition {
            Some(condition) => write!(f, " where {condition}"),
            None => Ok(()),
        }
    }
}

/// What must be done to one publication.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PublicationChange {
    /// It does not exist yet.
    pub create: bool,
    /// The new operations, if they change.
    pub operations: Option<Vec<Operation>>,
    /// Whether to publish changes of partitions as their root's, if that changes.
    pub via_root: Option<bool>,
    /// Tables to add.
    pub add: Vec<TableChange>,
    /// Tables whose columns or rows change.
    pub alter: Vec<TableChange>,
    /// Tables to remove.
    pub remove: Vec<TableName>,
    /// Tables to add that the role does not own, with their owners.
    pub not_owned: Vec<(TableName, String)>,
}

impl PublicationChange {
    /// Whether the publication is as it should be.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.create
            && self.operations.is_none()
            && self.via_root.is_none()
            && self.add.is_empty()
            && self.alter.is_empty()
            && self.remove.is_empty()
    }

    /// The statements that carry it out.
    #[must_use]
    pub fn sql(&self, name: &str) -> Vec<String> {
        let publication = escape_identifier(name);
        let publish = |operations: &Vec<Operation>| {
            let words: Vec<&str> = operations.iter().map(|operation| operation.word()).collect();
            format!("publish = '{}'", words.join(", "))
        };
        let root = |via_root: bool| format!("publish_via_partition_root = {via_root}");
        let root = self.via_root.map(root);
        let options: Vec<String> =
            root.into_iter().chain(self.operations.as_ref().map(publish)).collect();
        let options = options.join(", ");
        let added: Vec<String> = self.add.iter().chain(&self.alter).map(TableChange::sql).collect();
        if self.create {
            let tables = match added.as_slice() {
                [] => String::new(),
                tables => format!(" FOR TABLE {}", tables.join(", ")),
            };
            return vec![format!("CREATE PUBLICATION {publication}{tables} WITH ({options})")];
        }
        let altered = self.alter.iter().map(|change| &change.table);
        let removed: Vec<String> = self.remove.iter().chain(altered).map(only).collect();
        let tables = |what: &str, tables: &[String]| {
            let tables = (!tables.is_empty()).then(|| tables.join(", "))?;
            Some(format!("ALTER PUBLICATION {publication} {what} TABLE {tables}"))
        };
        let set = (!options.is_empty())
            .then(|| format!("ALTER PUBLICATION {publication} SET ({options})"));
        let changes = [set, tables("DROP", &removed), tables("ADD", &added)];
        changes.into_iter().flatten().collect()
    }

    /// Keeps only what concerns these tables.
    fn limit(&mut self, is_meant: impl Fn(&TableName) -> bool) {
        (self.create, self.operations, self.via_root) = (false, None, None);
        self.add.retain(|change| is_meant(&change.table));
        self.alter.retain(|change| is_meant(&change.table));
        self.remove.retain(|table| is_meant(table));
        self.not_owned.retain(|(table, _)| is_meant(table));
    }

    /// The options that differ from the configured ones.
    pub(super) fn options(
        &mut self,
        present: Option<&Publication>,
        operations: Vec<Operation>,
        root: bool,
    ) {
        self.create = present.is_none();
        if present.is_none_or(|publication| publication.operations != operations) {
            self.operations = Some(operations);
        }
        if present.is_none_or(|publication| publication.via_root != root) {
            self.via_root = Some(root);
        }
    }

    /// Plans that it contains this part of a table. Returns whether that needs nothing that only
    /// its owner may do.
    pub(super) fn hold(&mut self, present: Option<&Publication>, change: TableChange) -> bool {
        match present.and_then(|publication| publication.tables.get(&change.table)) {
            Some(as_it_is) if *as_it_is == change.published => return true,
            Some(_) => self.alter.push(change),
            None => self.add.push(change),
        }
        false
    }

    /// Plans that it contains only these tables.
    pub(super) fn keep(&mut self, present: Option<&Publication>, kept: &BTreeSet<&TableName>) {
        if let Some(publication) = present {
            let tables = publication.tables.keys();
            self.remove = tables.filter(|table| !kept.contains(table)).cloned().collect();
        }
    }
}

/// All that must be done so that the right tables are published.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Changes of the publication.
    pub main: PublicationChange,
    /// Changes of the one for inserts.
    pub inserts: PublicationChange,
    /// Tables of which only inserts (and truncates) are captured.
    pub insert_only: Vec<Limited>,
    /// Matching tables that are left out, because publishing them would break UPDATE and DELETE.
    pub left_out: Vec<Limited>,
    /// Tables in the current publication in which Postgres refuses to update or delete now.
    pub harmed: Vec<Limited>,
}

impl Plan {
    /// Whether all is as it should be.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.main.is_empty() && self.inserts.is_empty()
    }

    /// The statements that carry it out, as one transaction.
    #[must_use]
    pub fn sql(&self, names: Names<'_>) -> Vec<String> {
        let mut statements = self.main.sql(names.main);
        if !self.inserts.is_empty() {
            statements.extend(self.inserts.sql(names.inserts));
        }
        statements
    }

    /// The same as a script.
    #[must_use]
    pub fn script(&self, names: Names<'_>) -> String {
        format!("BEGIN; {}; COMMIT;", self.sql(names).join("; "))
    }

    /// The part that concerns these tables.
    #[must_use]
    pub fn limited_to(mut self, is_meant: impl Fn(&TableName) -> bool) -> Self {
        self.main.limit(&is_meant);
        self.inserts.limit(&is_meant);
        self
    }

    /// Tables of which more changes will be captured than so far, so that rows may be missing: new
    /// ones, and those whose updates and deletes are captured again.
    #[must_use]
    pub fn gains(&self) -> Vec<TableName> {
        let inserts =
            self.inserts.add.iter().filter(|added| !self.main.remove.contains(&added.table));
        self.main.add.iter().chain(inserts).map(|added| added.table.clone()).collect()
    }

    /// Tables in the publication whose updates fail, or are about to: the application waits for the
    /// plan.
    #[must_use]
    pub fn urgent(&self) -> BTreeSet<TableName> {
        let limited = self.insert_only.iter().chain(&self.left_out);
        let leaving = limited.filter(|limited| self.main.remove.contains(&limited.table));
        leaving.chain(&self.harmed).map(|limited| limited.table.clone()).collect()
    }

    /// Removes from the plan the tables that gain changes and whose rows must be read, and returns
    /// them; what is in a publication remains there.
    pub fn put_off_gains(&mut self, is_read: impl Fn(&TableName) -> bool) -> Vec<TableName> {
        let mut gains = self.gains();
        gains.retain(&is_read);
        self.keep_out(is_read);
        gains
    }

    /// Removes from the plan those of the tables that gain changes; what is in a publication
    /// remains there.
    pub fn keep_out(&mut self, is_out: impl Fn(&TableName) -> bool) {
        let mut gains = self.gains();
        gains.retain(is_out);
        for change in [&mut self.main, &mut self.inserts] {
            change.add.retain(|added| !gains.contains(&added.table));
            change.remove.retain(|table| !gains.contains(table));
            change.not_owned.retain(|(table, _)| !gains.contains(table));
        }
    }
}

/// The publications as they are.
#[derive(Debug, Clone, Copy, Default)]
pub struct Present<'a> {
    /// The publication.
    pub main: Option<&'a Publication>,
    /// The one for inserts.
    pub inserts: Option<&'a Publication>,
}

impl<'a> Present<'a> {
    /// Whether a table is in one of the two.
    #[must_use]
    pub fn has(&self, table: &TableName) -> bool {
        let both = [self.main, self.inserts];
        both.into_iter().flatten().any(|publication| publication.tables.contains_key(table))
    }

    /// Whether the row filter of a table could not be read because the table is locked.
    #[must_use]
    pub fn is_unread(&self, table: &TableName) -> bool {
        [self.main, self.inserts].into_iter().flatten().any(|held| held.unread.contains(table))
    }

    /// What is published of a table, by the publication that contains it.
    #[must_use]
    pub fn part(&self, table: &TableName) -> Option<&Published> {
        let of = |publication: Option<&'a Publication>| publication?.tables.get(table);
        of(self.main).or_else(|| of(self.inserts))
    }

    /// The columns that a table's row filter uses, if any.
    #[must_use]
    pub fn condition_columns(&self, table: &TableName) -> Option<&[String]> {
        let has = |publication: &&Publication| publication.tables.contains_key(table);
        let holds = self.main.filter(has).or_else(|| self.inserts.filter(has))?;
        holds.conditions.get(table).map(Vec::as_slice)
    }
}
