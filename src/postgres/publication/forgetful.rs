//! Works around servers that miss tables added to a publication: those before the minor releases of
//! May 2025.
//!
//! A walsender looks up a table's publications as of the transaction that it decodes. A transaction
//! that wrote to the table before it was published, and ended after, makes it look up the past
//! state; and as nothing invalidates that, it omits all later changes of the table. (PostgreSQL
//! 14.18, 15.13, 16.9 and 17.5 invalidate it.)
//!
//! So once all of these transactions have ended, the table is removed and added again, in one
//! transaction that is decoded after them.

use tokio_postgres::Client;

use super::{
    Names, PATIENCE, Plan, PublicationChange, TableChange, TableName, apply, find, with_ancestors,
};
use crate::postgres::Error;

/// The first fixed releases, as `server_version_num`.
const MENDED: [u32; 4] = [140_018, 150_013, 160_009, 170_005];

/// Whether a server of this version has the problem.
#[must_use]
pub fn is_forgetful(server_version: u32) -> bool {
    let mended = MENDED.iter().find(|mended| *mended / 10_000 == server_version / 10_000);
    mended.map_or(server_version < MENDED[0], |mended| server_version < *mended)
}

/// Makes such a server look up a table again that was added to the publication, once its earlier
/// writers have all ended. A publication that this role can't alter is not affected, because the
/// role has not added the table.
///
/// # Errors
/// When the server refuses it.
pub async fn remind(
    client: &Client,
    names: Names<'_>,
    table: &TableName,
    server_version: u32,
) -> Result<(), Error> {
    if !is_forgetful(server_version) {
        return Ok(());
    }
    let members = with_ancestors(client, table).await?;
    let change = async |name: &str| {
        let Some(present) = find(client, name, server_version).await? else {
            return Ok(PublicationChange::default());
        };
        if let Some(table) = members.iter().find(|table| present.unread.contains(table)) {
            return Err(Error::Altered { table: table.to_string() });
        }
        let listed = members.iter().filter(|_| present.is_owned).filter_map(|table| {
            let published = present.tables.get(table)?.clone();
            Some(TableChange { table: table.clone(), published })
        });
        Ok::<_, Error>(PublicationChange {
            alter: listed.collect(),
            ..PublicationChange::default()
        })
    };
    let (main, inserts) = (change(names.main).await?, change(names.inserts).await?);
    let plan = Plan { main, inserts, ..Plan::default() };
    if plan.is_empty() {
        return Ok(());
    }
    apply(client, names, &plan, PATIENCE).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_before_the_releases_that_mended_it_forget() {
        for old in [130_020, 140_017, 150_012, 160_001, 170_004] {
            assert!(is_forgetful(old), "{old}");
        }
        for mended in [140_018, 150_013, 150_018, 160_009, 170_005, 180_000, 190_001] {
            assert!(!is_forgetful(mended), "{mended}");
        }
    }
}
