//! Restricts the `search_path` of our connections to `pg_catalog`.
//!
//! Postgres looks up operators and functions by name and argument types in the schemas of
//! `search_path`. A role that may create in one of these schemas can add an operator that matches
//! better than the intended one, and it would run with our rights. So the first statement of every
//! connection sets the path to `pg_catalog` (`BEGIN`; a walsender has it in its startup message).
//! The temporary schema is named last, because otherwise types and tables would be looked up there
//! first; functions and operators never are.
//!
//! A condition of the configuration or of a request is meant as its author would type it, so it is
//! evaluated with the role's own path. That path is kept in a session setting, from which the
//! server reads it back, so nothing needs quoting. `OWN` sets it until the end of the transaction,
//! or until `SAFE` resets it.

use tokio_postgres::Client;

use super::Error;

/// The path of every connection.
pub(crate) const PATH: &str = "pg_catalog, pg_temp";

/// Sets the path of a new connection, after saving the role's own.
pub(crate) const BEGIN: &str = "SELECT pg_catalog.set_config('rowcast.search_path', \
     pg_catalog.current_setting('search_path'), false); \
     SET search_path = pg_catalog, pg_temp; SET standard_conforming_strings = on";

/// The role's own path, until the end of the transaction.
pub(crate) const OWN: &str = "SELECT pg_catalog.set_config('search_path', \
     COALESCE(pg_catalog.current_setting('rowcast.search_path', true), \
     pg_catalog.current_setting('search_path')), true)";

/// Back to the path of every connection, in the same transaction.
pub(crate) const SAFE: &str = "SET LOCAL search_path = pg_catalog, pg_temp";

/// Sets the role's own path for the whole session, for SQL that is entirely the user's.
///
/// # Errors
/// When the query fails.
pub async fn restore(client: &Client) -> Result<(), Error> {
    let sql = "SELECT pg_catalog.set_config('search_path', \
               pg_catalog.current_setting('rowcast.search_path'), false)";
    let failed = |source| Error::Sql { doing: "set the role's own search_path", source };
    client.batch_execute(sql).await.map_err(failed)
}
