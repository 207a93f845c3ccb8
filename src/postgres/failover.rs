//! Checks which standbys have a copy of a failover slot, so that one of them can take over with it.
//!
//! Queries the primary and the standbys that `postgres.url` names. A standby that has a slot of the
//! same name which is not the primary's never receives a copy: the slot is left over from when that
//! server was the primary, or was created there by hand.

use super::conninfo::{ConnInfo, Host};
use super::{ConnectOptions, Error, client};

const FAILOVER_SLOT: &str = include_str!("../../sql/failover_slot.sql");
const SLOT_ON_STANDBY: &str = include_str!("../../sql/slot_on_standby.sql");

/// Where a failover slot has copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// There is no such slot, or no server could be queried.
    Unknown,
    /// A standby has a copy, or requests one.
    Yes,
    /// No standby does.
    Nowhere,
    /// The slot was created without failover.
    NoFailover,
    /// A standby has another slot of this name.
    LeftOver {
        /// The standby.
        host: String,
    },
}

/// Queries where a failover slot has copies. A standby that can't be reached is ignored.
///
/// # Errors
/// When the primary can't be queried.
pub async fn kept(info: &ConnInfo, options: &ConnectOptions, slot: &str) -> Result<Kept, Error> {
    let failed = |source| Error::Sql { doing: "read which standby has the slot", source };
    let primary = client::connect(info, options).await?;
    let Some(row) = primary.query_opt(FAILOVER_SLOT, &[&slot]).await.map_err(failed)? else {
        return Ok(Kept::Unknown);
    };
    let (is_failover, is_asked_for): (bool, bool) = (row.get(0), row.get(1));
    if !is_failover {
        return Ok(Kept::NoFailover);
    }
    let (mut copies, mut standbys) = (0, 0);
    for host in info.hosts() {
        match on_standby(info, options, host, slot).await {
            Ok(Some(true)) => copies += 1,
            Ok(Some(false)) => return Ok(Kept::LeftOver { host: host.to_string() }),
            Ok(None) => standbys += 1,
            Err(error) => {
                tracing::debug!(%host, %error, "checking a standby's slot");
            }
        }
    }
    let is_kept = copies > 0 || (standbys == 0 && is_asked_for);
    Ok(if is_kept { Kept::Yes } else { Kept::Nowhere })
}

/// Whether the slot on this host, if it is a standby that has one, is a copy of the primary's.
async fn on_standby(
    info: &ConnInfo,
    options: &ConnectOptions,
    host: &Host,
    slot: &str,
) -> Result<Option<bool>, Error> {
    let failed = |source| Error::Sql { doing: "read a standby's slot", source };
    let standby = client::connect(&info.standby_at(host), options).await?;
    let row = standby.query_opt(SLOT_ON_STANDBY, &[&slot]).await.map_err(failed)?;
    Ok(row.map(|row| row.get(0)))
}
