//! Writes a simulator's row changes to Postgres.
//!
//! One statement a table and kind, whose only parameter is a JSON array of rows: the server turns
//! it into rows by the table's own column types, so one statement serves one row or a thousand.
//! Rows of a transaction are gathered into such arrays as far as their order allows: all inserts
//! (parents first), then updates, then deletes (children first), and never the same row twice.

use std::collections::{HashMap, HashSet};

use tokio_postgres::{Client, Statement};

use super::change::{Ids, Kind, RowChange, Target};
use super::{GenerateError, Progress};

/// Sequence values that are fetched in one go.
const ID_BLOCK: i64 = 1000;

/// The prepared statements of a template's tables.
pub(super) struct Writer<'a> {
    client: &'a Client,
    /// In the order of foreign keys: a table comes after those it refers to.
    tables: &'static [&'static Target],
    statements: HashMap<(&'static str, Kind), Statement>,
}

/// Rows that one statement writes.
struct Group<'a> {
    table: &'static Target,
    kind: Kind,
    rows: Vec<&'a str>,
}

impl<'a> Writer<'a> {
    pub(super) async fn prepare(
        client: &'a Client,
        tables: &'static [&'static Target],
    ) -> Result<Self, GenerateError> {
        let mut statements = HashMap::new();
        for &table in tables {
            for kind in [Kind::Insert, Kind::Update, Kind::Delete] {
                let statement = client.prepare(&sql(table, kind)).await.map_err(|source| {
                    GenerateError::Prepare { table: table.name, source: Box::new(source) }
                })?;
                statements.insert((table.name, kind), statement);
            }
        }
        Ok(Self { client, tables, statements })
    }

    /// Takes values of the tables' sequences until `ids` suffice for a step.
    pub(super) async fn refill(&self, ids: &mut Ids) -> Result<(), GenerateError> {
        for &table in self.tables.iter().filter(|table| table.identity) {
            if ids.left(table) > 0 {
                continue;
            }
            let values = self
                .client
                .query(
                    "SELECT nextval(pg_get_serial_sequence($1, $2)) FROM generate_series(1, $3::bigint)",
                    &[&table.name, &table.key[0], &ID_BLOCK],
                )
                .await
                .map_err(|source| GenerateError::Ids {
                    table: table.name,
                    source: Box::new(source),
                })?;
            ids.offer(table, values.iter().map(|row| row.get::<_, i64>(0)));
        }
        Ok(())
    }

    /// Writes `changes` in one transaction and counts them.
    pub(super) async fn write(
        &self,
        changes: &[RowChange],
        progress: &Progress,
    ) -> Result<(), GenerateError> {
        let groups = group(changes, self.tables);
        if let [single] = groups.as_slice() {
            self.execute(single).await?;
        } else {
            self.control("BEGIN").await?;
            for group in &groups {
                self.execute(group).await?;
            }
            self.control("COMMIT").await?;
        }
        for change in changes {
            progress.count(change.kind);
        }
        Ok(())
    }

    async fn execute(&self, group: &Group<'_>) -> Result<(), GenerateError> {
        let Some(statement) = self.statements.get(&(group.table.name, group.kind)) else {
            return Ok(());
        };
        let failed = |source| GenerateError::Write {
            kind: group.kind,
            table: group.table.name,
            rows: group.rows.len(),
            source: Box::new(source),
        };
        let array = format!("[{}]", group.rows.join(","));
        let written = self.client.execute(statement, &[&array]).await.map_err(failed)?;
        if usize::try_from(written) != Ok(group.rows.len()) {
            return Err(GenerateError::RowsMissing {
                kind: group.kind,
                table: group.table.name,
                rows: group.rows.len(),
                written,
            });
        }
        Ok(())
    }

    async fn control(&self, command: &'static str) -> Result<(), GenerateError> {
        self.client
            .batch_execute(command)
            .await
            .map_err(|source| GenerateError::Transaction { command, source: Box::new(source) })
    }
}

/// The changes in statements, whose order keeps every row's own order and the foreign keys.
fn group<'a>(changes: &'a [RowChange], tables: &[&'static Target]) -> Vec<Group<'a>> {
    let mut done: Vec<Group<'a>> = Vec::new();
    let mut round: Vec<(usize, Group<'a>)> = Vec::new();
    let mut touched: HashSet<(&str, (i64, i32))> = HashSet::new();
    for change in changes {
        let row = (change.table.name, change.key);
        // An insert comes before all else in a round, so it may be followed by one more change of
        // its row; a second update, or a delete after an update, opens a new round.
        if change.kind != Kind::Insert && !touched.insert(row) {
            finish(&mut round, &mut done);
            touched.clear();
            touched.insert(row);
        }
        let rank = rank(change, tables);
        match round.iter_mut().find(|(at, _)| *at == rank) {
            Some((_, group)) => group.rows.push(&change.row),
            None => round.push((
                rank,
                Group { table: change.table, kind: change.kind, rows: vec![&change.row] },
            )),
        }
    }
    finish(&mut round, &mut done);
    done
}

fn finish<'a>(round: &mut Vec<(usize, Group<'a>)>, done: &mut Vec<Group<'a>>) {
    round.sort_by_key(|(rank, _)| *rank);
    done.extend(round.drain(..).map(|(_, group)| group));
}

/// Place within a round: inserts parents first, updates, deletes children first.
fn rank(change: &RowChange, tables: &[&'static Target]) -> usize {
    let place = tables.iter().position(|table| *table == change.table).unwrap_or(0);
    match change.kind {
        Kind::Insert => place,
        Kind::Update => tables.len() + place,
        Kind::Delete => 3 * tables.len() - place,
    }
}

/// The statement that writes a JSON array of rows.
fn sql(table: &Target, kind: Kind) -> String {
    let name = table.name;
    let rows = format!("jsonb_populate_recordset(NULL::{name}, $1::text::jsonb) AS new");
    let same_row = table
        .key
        .iter()
        .map(|column| format!("{name}.{column} = new.{column}"))
        .collect::<Vec<_>>()
        .join(" AND ");
    match kind {
        Kind::Insert => {
            let columns = [table.key, table.columns].concat().join(", ");
            format!("INSERT INTO {name} ({columns}) SELECT {columns} FROM {rows}")
        }
        Kind::Update => {
            let set = table
                .columns
                .iter()
                .map(|column| format!("{column} = new.{column}"))
                .collect::<Vec<_>>()
                .join(", ");
            format!("UPDATE {name} SET {set} FROM {rows} WHERE {same_row}")
        }
        Kind::Delete => format!("DELETE FROM {name} USING {rows} WHERE {same_row}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static PARENT: Target =
        Target { name: "parent", key: &["id"], columns: &["a", "b"], identity: true };
    static CHILD: Target =
        Target { name: "child", key: &["id", "line"], columns: &["c"], identity: false };

    fn change(table: &'static Target, kind: Kind, id: i64) -> RowChange {
        RowChange { table, kind, key: (id, 0), row: format!("{}{kind:?}{id}", table.name) }
    }

    fn order(changes: &[RowChange]) -> Vec<String> {
        group(changes, &[&PARENT, &CHILD]).iter().map(|group| group.rows.join(" ")).collect()
    }

    #[test]
    fn rows_of_one_kind_share_a_statement_and_parents_come_first() {
        let changes = [
            change(&PARENT, Kind::Insert, 1),
            change(&CHILD, Kind::Insert, 1),
            change(&PARENT, Kind::Insert, 2),
            change(&PARENT, Kind::Update, 1),
            change(&PARENT, Kind::Delete, 3),
            change(&CHILD, Kind::Delete, 3),
        ];
        assert_eq!(
            order(&changes),
            [
                "parentInsert1 parentInsert2",
                "childInsert1",
                "parentUpdate1",
                "childDelete3",
                "parentDelete3",
            ]
        );
    }

    #[test]
    fn two_changes_of_a_row_are_never_in_one_round() {
        let changes = [
            change(&PARENT, Kind::Insert, 1),
            change(&PARENT, Kind::Update, 1),
            change(&PARENT, Kind::Update, 1),
            change(&PARENT, Kind::Insert, 2),
            change(&PARENT, Kind::Delete, 1),
        ];
        assert_eq!(
            order(&changes),
            ["parentInsert1", "parentUpdate1", "parentInsert2", "parentUpdate1", "parentDelete1"]
        );
    }

    #[test]
    fn statements_name_every_column() {
        assert_eq!(
            sql(&PARENT, Kind::Insert),
            "INSERT INTO parent (id, a, b) SELECT id, a, b FROM \
             jsonb_populate_recordset(NULL::parent, $1::text::jsonb) AS new"
        );
        assert_eq!(
            sql(&CHILD, Kind::Update),
            "UPDATE child SET c = new.c FROM \
             jsonb_populate_recordset(NULL::child, $1::text::jsonb) AS new \
             WHERE child.id = new.id AND child.line = new.line"
        );
    }
}
