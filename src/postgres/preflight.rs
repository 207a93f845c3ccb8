//! What must hold on the server before anything is made there, all of it checked at once.
//!
//! Each check that fails says why it matters and gives the SQL, or the setting, for whoever may
//! run it. A right is only asked for where it is needed: a role that finds its publication and its
//! slot made by a DBA needs neither CREATE nor ownership.

use std::fmt;

use postgres_protocol::escape::escape_identifier;
use tokio_postgres::Client;

use super::Error;
use super::publication::{Names, Plan, Publication, TableName};

const RIGHTS: &str = include_str!("../../sql/rights.sql");
const UNREADABLE: &str = include_str!("../../sql/unreadable.sql");

/// One thing that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortfall {
    /// What is wrong, and what it is needed for.
    pub cause: String,
    /// What mends it.
    pub fix: String,
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause)
    }
}

/// Who asks, as far as it decides what the role may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// Its name.
    pub name: String,
    /// Whether it may make, read and drop slots.
    pub can_replicate: bool,
}

/// The role of this connection.
///
/// # Errors
/// When the query fails.
pub async fn role(client: &Client) -> Result<Role, Error> {
    let failed = |source| Error::Sql { doing: "ask for the role's rights", source };
    let row = client.query_one(RIGHTS, &[]).await.map_err(failed)?;
    Ok(Role { name: row.get(0), can_replicate: row.get(3) })
}

/// The role may not make, read or drop slots.
#[must_use]
pub fn no_replication(role: &str) -> Shortfall {
    let role = escape_identifier(role);
    Shortfall {
        cause: format!("the role {role} may not replicate"),
        fix: format!("ALTER ROLE {} REPLICATION;", unquoted(&role)),
    }
}

/// What is about to be done on the server.
#[derive(Debug)]
pub struct Intent<'a> {
    /// The publications' names.
    pub names: Names<'a>,
    /// The publication as it is.
    pub present: Option<&'a Publication>,
    /// What is to be done to it, and to the one for inserts.
    pub plan: &'a Plan,
    /// The slot's name, where it is to be made.
    pub new_slot: Option<&'a str>,
    /// Whether the bridge may make what is missing.
    pub manage: bool,
}

/// Everything that does not hold; empty when all is well.
///
/// # Errors
/// When the query fails.
pub async fn check(client: &Client, intent: &Intent<'_>) -> Result<Vec<Shortfall>, Error> {
    let failed = |source| Error::Sql { doing: "ask for the role's rights", source };
    let row = client.query_one(RIGHTS, &[]).await.map_err(failed)?;
    let role: String = escape_identifier(row.get(0));
    let database: String = escape_identifier(row.get(1));
    let mut shortfalls = Vec::new();
    let mut need = |holds: bool, cause: String, fix: String| {
        if !holds {
            shortfalls.push(Shortfall { cause, fix });
        }
    };

    let wal_level: &str = row.get(2);
    need(
        wal_level == "logical",
        format!("wal_level is {wal_level}, and only logical has what row changes are read from"),
        "ALTER SYSTEM SET wal_level = 'logical'; then restart the server".to_owned(),
    );
    need(
        row.get(3),
        format!("the role {role} may not replicate"),
        format!("ALTER ROLE {} REPLICATION;", unquoted(&role)),
    );
    need(
        row.get::<_, i32>(7) > 0,
        "max_wal_senders is 0, so nobody can stream".to_owned(),
        "ALTER SYSTEM SET max_wal_senders = 10; then restart the server".to_owned(),
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
    let statements = || intent.plan.sql(intent.names).join("; ") + ";";
    let change = &intent.plan.main;
    if change.create {
        need(
            intent.manage,
            format!(
                "the publication {:?} does not exist, and postgres.manage is false",
                intent.names.main
            ),
            statements(),
        );
        need(
            !intent.manage || row.get(4),
            format!("the role {role} may not create a publication in {database}"),
            format!(
                "GRANT CREATE ON DATABASE {database} TO {role}; or, as a DBA: {}",
                statements()
            ),
        );
    } else if let Some(present) = intent.present
        && intent.manage
        && !change.is_empty()
    {
        need(
            present.is_owned,
            format!(
                "the publication {:?} belongs to {:?}, and its tables, filters or operations are not \
                 those that the configuration asks for",
                intent.names.main, present.owner
            ),
            statements(),
        );
    }
    if intent.manage {
        for (table, owner) in &change.not_owned {
            need(
                false,
                format!("only the owner of {table}, {owner:?}, may publish it"),
                format!(
                    "GRANT {} TO {role}; or, as a DBA: {}",
                    escape_identifier(owner),
                    statements()
                ),
            );
        }
    }
    Ok(shortfalls)
}

/// The tables whose rows a snapshot is to read, and this role may not; empty when all is well.
///
/// # Errors
/// When the query fails.
pub async fn check_reading(client: &Client, tables: &[TableName]) -> Result<Vec<Shortfall>, Error> {
    let failed = |source| Error::Sql { doing: "ask for the role's rights on tables", source };
    let role = client.query_one("SELECT current_user::text", &[]).await.map_err(failed)?;
    let role: String = escape_identifier(role.get(0));
    let schemas: Vec<&str> = tables.iter().map(|table| table.schema.as_str()).collect();
    let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
    let rows = client.query(UNREADABLE, &[&schemas, &names]).await.map_err(failed)?;
    let shortfall = |row: &tokio_postgres::Row| {
        let table = TableName { schema: row.get(0), name: row.get(1) };
        Shortfall {
            cause: format!(
                "the role {role} may not read {table}, whose rows are to be published first"
            ),
            fix: format!(
                "GRANT USAGE ON SCHEMA {} TO {role}; GRANT SELECT ON {} TO {role}; or set \
                 snapshot.mode = \"never\"",
                escape_identifier(&table.schema),
                table.sql()
            ),
        }
    };
    Ok(rows.iter().map(shortfall).collect())
}

/// A plain name reads better without the quotes that any other needs.
fn unquoted(identifier: &str) -> &str {
    let bare = identifier.trim_matches('"');
    let is_plain = bare.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
        && bare.starts_with(|first: char| !first.is_ascii_digit());
    if is_plain { bare } else { identifier }
}
