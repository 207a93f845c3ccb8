//! Reports tables that are captured only in part: insert-only, left out, or refused updates, each
//! with the statements that fix it.

use std::collections::BTreeMap;

use super::Bridge;
use crate::config::Resolved;
use crate::postgres::publication::manage::{Look, may_alter};
use crate::postgres::publication::{
    Limited, Names, Plan, Publication, PublicationChange, TableName,
};
use crate::state::{LimitedTable, Limits};

impl Bridge {
    /// Reports the tables that are captured only in part or that the application can't update, and
    /// logs new ones.
    pub(super) fn show_limits(&self, look: &Look) {
        let before = self.status.borrow().limits.clone();
        let now = limits(&self.settings, look);
        let kinds = [
            (&before.insert_only, &now.insert_only, INSERT_ONLY),
            (&before.left_out, &now.left_out, LEFT_OUT),
            (&before.refused, &now.refused, REFUSED),
        ];
        for (before, now, what) in kinds {
            let new = now.iter().filter(|limited| !before.contains(limited));
            for LimitedTable { table, cause, fix } in new.clone().take(TOLD) {
                tracing::warn!(table, cause, fix, "{what}");
            }
            if let Some(more) = new.count().checked_sub(TOLD).filter(|more| *more > 0) {
                tracing::warn!(more, "{what}; all are in /status");
            }
        }
        let count = |list: &[LimitedTable]| list.len().try_into().unwrap_or(u64::MAX);
        self.metrics.tables_insert_only.set(count(&now.insert_only));
        self.metrics.set_tables_left_out("identity", count(&now.left_out));
        self.metrics.tables_refused.set(count(&now.refused));
        if before != now {
            self.status.send_modify(|status| status.limits = now);
        }
    }
}

/// The tables that a check found to be captured only in part.
fn limits(settings: &Resolved, look: &Look) -> Limits {
    let Look { plan, survey, .. } = look;
    let may_alter = may_alter(settings, survey);
    let shown = |limited: &Limited, fix: String| LimitedTable {
        table: limited.table.to_string(),
        cause: limited.cause.clone(),
        fix,
    };
    let holds = |publication: &Option<Publication>, limited: &&Limited| {
        publication.as_ref().is_some_and(|held| held.tables.contains_key(&limited.table))
    };
    let own = |limited: &Limited| shown(limited, limited.fix.clone());
    if may_alter {
        return Limits {
            insert_only: plan.insert_only.iter().map(own).collect(),
            left_out: plan.left_out.iter().map(own).collect(),
            refused: Vec::new(),
        };
    }
    let (insert_only, others): (Vec<&Limited>, Vec<&Limited>) =
        plan.insert_only.iter().partition(|limited| holds(&survey.inserts, limited));
    let left_out = others.into_iter().filter(|limited| !holds(&survey.main, limited));
    let is_by_table = survey.main.as_ref().is_none_or(|main| main.is_by_table);
    let mut scripts = Scripts::of(plan, Names::of(settings));
    let mut dba = |limited: &Limited| match is_by_table {
        true => shown(limited, scripts.fix(limited)),
        false => own(limited),
    };
    Limits {
        insert_only: insert_only.into_iter().map(own).collect(),
        left_out: left_out.map(&mut dba).collect(),
        refused: plan.harmed.iter().map(&mut dba).collect(),
    }
}

/// What a DBA has to run, per table.
struct Scripts<'a> {
    names: Names<'a>,
    by_table: BTreeMap<&'a TableName, Plan>,
    /// Statements that concern no single table.
    options: Plan,
    /// Whether the publication for inserts is missing, and no script creates it yet.
    creates: bool,
}

impl<'a> Scripts<'a> {
    fn of(plan: &'a Plan, names: Names<'a>) -> Self {
        let options = plan.without_tables();
        let creates = options.inserts.create;
        Self { names, by_table: plan.by_table(), options, creates }
    }

    fn fix(&mut self, limited: &Limited) -> String {
        let mut once = String::new();
        let script = match self.by_table.get(&limited.table) {
            Some(own) if self.options.inserts.create => {
                let mut own = own.clone();
                if std::mem::take(&mut self.creates) {
                    let tables = std::mem::take(&mut own.inserts);
                    let add = [tables.add, tables.alter].concat();
                    own.inserts = PublicationChange { add, ..self.options.inserts.clone() };
                } else {
                    once = format!(", once {:?} is created", self.names.inserts);
                }
                own.script(self.names)
            }
            Some(own) => own.script(self.names),
            None => self.options.script(self.names),
        };
        format!("{} or, for its inserts alone, as a DBA{once}: {script}", limited.fix)
    }
}

/// Most tables that are logged one by one.
pub(super) const TOLD: usize = 10;

const INSERT_ONLY: &str = "insert-only: Postgres would refuse updates and deletes to the \
                           application if they were published";
const LEFT_OUT: &str =
    "left out: Postgres would refuse to update or delete its rows once published";
const REFUSED: &str = "Postgres refuses to update or delete rows of this table: it is in the \
                       publication, which rowcast may not alter";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::publication::{Published, TableChange};

    const NAMES: Names<'_> = Names { main: "p", inserts: "p_inserts" };

    fn name(table: &str) -> TableName {
        TableName { schema: "public".to_owned(), name: table.to_owned() }
    }

    /// Tables that have to move from one publication to the other.
    fn going(tables: &[&str], create: bool) -> Plan {
        let mut plan = Plan::default();
        for table in tables {
            let change = TableChange { table: name(table), published: Published::default() };
            plan.inserts.add.push(change);
            plan.main.remove.push(name(table));
        }
        plan.inserts.create = create;
        plan.inserts.via_root = create.then_some(true);
        plan
    }

    fn fixes(plan: &Plan, tables: &[&str]) -> Vec<String> {
        let limited = |table: &&str| Limited {
            table: name(table),
            cause: String::new(),
            fix: "FIRST".to_owned(),
        };
        let mut scripts = Scripts::of(plan, NAMES);
        tables.iter().map(limited).map(|limited| scripts.fix(&limited)).collect()
    }

    #[test]
    fn each_table_has_its_own_statements_and_the_first_creates_the_publication() {
        let script = |table: &str, last: &str| {
            format!(
                "BEGIN; ALTER PUBLICATION \"p\" DROP TABLE ONLY \"public\".\"{table}\"; {last}; COMMIT;"
            )
        };
        let add = |table: &str| {
            script(
                table,
                &format!("ALTER PUBLICATION \"p_inserts\" ADD TABLE ONLY \"public\".\"{table}\""),
            )
        };
        let of = "FIRST or, for its inserts alone, as a DBA";
        assert_eq!(
            fixes(&going(&["a", "b"], false), &["a", "b"]),
            [format!("{of}: {}", add("a")), format!("{of}: {}", add("b"))]
        );
        let create = "CREATE PUBLICATION \"p_inserts\" FOR TABLE ONLY \"public\".\"a\" WITH \
                      (publish_via_partition_root = true)";
        assert_eq!(
            fixes(&going(&["a", "b"], true), &["a", "b"]),
            [
                format!("{of}: {}", script("a", create)),
                format!("{of}, once \"p_inserts\" is created: {}", add("b")),
            ]
        );
        // For a table without a plan, the publication's options are the problem.
        let mut options = Plan::default();
        options.main.operations = Some(Vec::new());
        let set = "BEGIN; ALTER PUBLICATION \"p\" SET (publish = ''); COMMIT;";
        assert_eq!(fixes(&options, &["a"]), [format!("{of}: {set}")]);
    }
}
