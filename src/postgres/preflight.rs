//! Checks all requirements on the server at once, before anything is created there.
//!
//! Each failed check says why it matters and has the SQL, or the setting, that fixes it. A
//! permission is only required if it is needed: a role whose publication and slot a DBA created
//! needs neither CREATE nor ownership. No fix makes the role a member of another, which would grant
//! it all that the other may do.

use std::collections::BTreeMap;
use std::fmt;

use postgres_protocol::escape::escape_identifier;
use tokio_postgres::Client;

use super::Error;
use super::publication::{Names, Plan, Publication, TableName};
use crate::few::few;

const RIGHTS: &str = include_str!("../../sql/rights.sql");
const UNREADABLE: &str = include_str!("../../sql/unreadable.sql");

/// A requirement that is not met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortfall {
    /// What is wrong, and what it is needed for.
    pub cause: String,
    /// The fix. A line that ends with a semicolon is SQL, and one that starts with `--` is a
    /// comment on it; any other is plain text.
    pub fix: String,
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause)
    }
}

/// The role, as far as it decides what is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// Its name.
    pub name: String,
    /// Whether it may create, read and drop slots.
    pub can_replicate: bool,
}

/// The role of this connection.
///
/// # Errors
/// When the query fails.
pub async fn role(client: &Client) -> Result<Role, Error> {
    let failed = |source| Error::Sql { doing: "read the role's rights", source };
    let row = client.query_one(RIGHTS, &[]).await.map_err(failed)?;
    Ok(Role { name: row.get(0), can_replicate: row.get(3) })
}

/// The shortfall of a role that may not create, read or drop slots.
#[must_use]
pub fn no_replication(role: &str) -> Shortfall {
    let role = escape_identifier(role);
    Shortfall {
        cause: format!("the role {role} may not replicate"),
        fix: format!("ALTER ROLE {} REPLICATION;", unquoted(&role)),
    }
}

/// What a start will do on the server.
#[derive(Debug)]
pub struct Intent<'a> {
    /// The publications' names.
    pub names: Names<'a>,
    /// The publication as it is.
    pub present: Option<&'a Publication>,
    /// The planned changes of it, and of the one for inserts.
    pub plan: &'a Plan,
    /// The slot's name, if it must be created.
    pub new_slot: Option<&'a str>,
    /// Whether the bridge may create what is missing.
    pub manage: bool,
}

/// The requirements that are not met; empty if all are.
///
/// # Errors
/// When the query fails.
pub async fn check(client: &Client, intent: &Intent<'_>) -> Result<Vec<Shortfall>, Error> {
    let failed = |source| Error::Sql { doing: "read the role's rights", source };
    let row = client.query_one(RIGHTS, &[]).await.map_err(failed)?;
    let role: String = escape_identifier(row.get(0));
    let database: String = escape_identifier(row.get(1));
    let mut shortfalls = Vec::new();
    let mut need = |holds: bool, cause: String, fix: String| {
        if !holds {
            shortfalls.push(Shortfall { cause, fix });
        }
    };

    need_wal_level(row.get(2), row.get(8), &mut need);
    need(
        row.get(3),
        format!("the role {role} may not replicate"),
        format!("ALTER ROLE {} REPLICATION;", unquoted(&role)),
    );
    need(
        row.get::<_, i32>(7) > 0,
        "max_wal_senders is 0, so streaming is impossible".to_owned(),
        "-- then restart the server:\nALTER SYSTEM SET max_wal_senders = 10;".to_owned(),
    );
    if let Some(slot) = intent.new_slot {
        need(
            intent.manage,
            format!("the replication slot {slot:?} does not exist, and postgres.manage is false"),
            format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput');"),
        );
        let max_slots: i32 = row.get(6);
        need(
            row.get::<_, i32>(5) > 0,
            format!("all {max_slots} replication slots of the server are taken"),
            "drop an unused one (SELECT slot_name FROM pg_replication_slots WHERE NOT active), or \
             raise max_replication_slots and restart the server"
                .to_owned(),
        );
    }
    shortfalls.extend(publishing(intent, &role, &database, row.get(4)));
    Ok(shortfalls)
}

/// From version 19 on, the first logical slot turns on logical WAL, and dropping the last one turns
/// it off: `replica` is enough. `effective_wal_level` only shows the current state.
fn need_wal_level(wal_level: &str, version: i32, need: &mut impl FnMut(bool, String, String)) {
    let (is_enough, enough) = match version {
        190_000.. => (matches!(wal_level, "replica" | "logical"), "replica"),
        _ => (wal_level == "logical", "logical"),
    };
    need(
        is_enough,
        format!(
            "wal_level is {wal_level}, and only {enough} contains the information for row \
                 changes"
        ),
        format!("-- then restart the server:\nALTER SYSTEM SET wal_level = '{enough}';"),
    );
}

/// What prevents the role from creating or altering the publication as needed.
///
/// If tables belong to others, a DBA runs what we would have run: a role that may publish a table
/// may do anything to it, so the role should own neither the tables nor have their owner's rights.
fn publishing(intent: &Intent<'_>, role: &str, database: &str, can_create: bool) -> Vec<Shortfall> {
    let (publication, change) = (intent.names.main, &intent.plan.main);
    let mut shortfalls = Vec::new();
    let statements = intent.plan.sql(intent.names).join(";\n") + ";";
    let mut need = |holds: bool, cause: String, fix: &str| {
        if !holds {
            shortfalls.push(Shortfall { cause, fix: fix.to_owned() });
        }
    };
    if change.create {
        need(
            intent.manage,
            format!("the publication {publication:?} does not exist, and postgres.manage is false"),
            &statements,
        );
        // What a DBA creates does not require the role's permission.
        let grant = format!("GRANT CREATE ON DATABASE {database} TO {role};");
        need(
            !intent.manage || can_create,
            format!("the role {role} may not create a publication in {database}"),
            if change.not_owned.is_empty() { &grant } else { &statements },
        );
    } else if let Some(present) = intent.present
        && intent.manage
        && !change.is_empty()
    {
        need(
            present.is_owned,
            format!(
                "the publication {publication:?} belongs to {:?}, and its tables, filters or \
                 operations are not as configured",
                present.owner
            ),
            &statements,
        );
    }
    if intent.manage {
        let mut owners: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (table, owner) in &change.not_owned {
            owners.entry(owner).or_default().push(table.to_string());
        }
        for (owner, tables) in owners {
            let cause = format!("only the owner of {}, {owner:?}, may publish it", few(&tables));
            need(false, cause, &statements);
        }
    }
    shortfalls
}

/// The fix for all of it: each statement once, to be pasted as it is; what is not SQL becomes a
/// comment, or plain text if there is no statement at all.
#[must_use]
pub fn fix(shortfalls: &[Shortfall]) -> String {
    let mut lines: Vec<&str> = Vec::new();
    for line in shortfalls.iter().flat_map(|shortfall| shortfall.fix.lines()) {
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    let is_sql = |line: &&str| line.ends_with(';') || line.starts_with("--");
    if !lines.iter().any(is_sql) {
        return lines.join("\n");
    }
    let (sql, words): (Vec<&str>, Vec<&str>) = lines.into_iter().partition(is_sql);
    let words = words.iter().map(|line| format!("-- {line}"));
    words.chain(sql.into_iter().map(str::to_owned)).collect::<Vec<_>>().join("\n")
}

/// The tables whose rows a snapshot has to read but this role may not; empty if none.
///
/// # Errors
/// When the query fails.
pub async fn check_reading(client: &Client, tables: &[TableName]) -> Result<Vec<Shortfall>, Error> {
    let failed = |source| Error::Sql { doing: "read the role's rights on tables", source };
    let role = client.query_one("SELECT current_user::text", &[]).await.map_err(failed)?;
    let role: String = escape_identifier(role.get(0));
    let schemas: Vec<&str> = tables.iter().map(|table| table.schema.as_str()).collect();
    let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
    let rows = client.query(UNREADABLE, &[&schemas, &names]).await.map_err(failed)?;
    let unreadable: Vec<TableName> =
        rows.iter().map(|row| TableName { schema: row.get(0), name: row.get(1) }).collect();
    if unreadable.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<String> = unreadable.iter().map(ToString::to_string).collect();
    let mut by_schema: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for table in &unreadable {
        by_schema.entry(&table.schema).or_default().push(table.sql());
    }
    let grants = by_schema.into_iter().map(|(schema, tables)| {
        let (schema, tables) = (escape_identifier(schema), tables.join(", "));
        format!("GRANT USAGE ON SCHEMA {schema} TO {role};\nGRANT SELECT ON {tables} TO {role};")
    });
    Ok(vec![Shortfall {
        cause: format!(
            "the role {role} may not read {}, whose existing rows are published first",
            few(&names)
        ),
        fix: grants
            .chain(["-- or set snapshot.mode = \"never\" to read no rows".to_owned()])
            .collect::<Vec<_>>()
            .join("\n"),
    }])
}

/// A plain name needs no quotes.
fn unquoted(identifier: &str) -> &str {
    let bare = identifier.trim_matches('"');
    let is_plain = bare.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
        && bare.starts_with(|first: char| !first.is_ascii_digit());
    if is_plain { bare } else { identifier }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fix_is_one_block_with_each_statement_once_and_words_as_comments() {
        let shortfall = |fix: &str| Shortfall { cause: String::new(), fix: fix.to_owned() };
        let words = [shortfall("set a key"), shortfall("set a key"), shortfall("set another")];
        assert_eq!(fix(&words), "set a key\nset another");
        let mixed = [
            shortfall("-- then restart:\nALTER SYSTEM SET a = 1;"),
            shortfall("CREATE PUBLICATION p;"),
            shortfall("set a key"),
            shortfall("CREATE PUBLICATION p;\nGRANT SELECT ON a TO r;"),
        ];
        assert_eq!(
            fix(&mixed),
            "-- set a key\n-- then restart:\nALTER SYSTEM SET a = 1;\nCREATE PUBLICATION p;\n\
             GRANT SELECT ON a TO r;"
        );
    }
}
