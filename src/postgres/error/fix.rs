//! The fix for each failure.

use super::{Error, io_cause, is_refused_by_tls};
use crate::allocation;
use crate::postgres::{preflight, sqlstate};

impl Error {
    /// What an operator can do about it, if known.
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "a table: what helps against each error")]
    pub fn fix(&self) -> Option<String> {
        let fix = match self {
            Self::Connect { .. } => {
                "check host and port of postgres.url, and that the server runs and listens there"
            }
            Self::Hosts { attempts } => return attempts.iter().find_map(|(_, error)| error.fix()),
            Self::Preflight { shortfalls } => {
                return Some(preflight::fix(shortfalls));
            }
            Self::Password(source) => return Some(source.fix()),
            Self::PasswordMissing { .. } => {
                "set postgres.password_file, PGPASSWORD, or the password in postgres.url"
            }
            Self::CleartextRefused => {
                "set sslmode=verify-full in postgres.url, or scram-sha-256 in pg_hba.conf"
            }
            Self::Memory { .. } => allocation::FIX,
            Self::NoTls { .. } => "set ssl = on in postgresql.conf, or sslmode=prefer",
            Self::TlsHandshake { .. } => {
                "check sslrootcert, and for verify-full that the certificate's subject alternative \
                 names hold the host"
            }
            Self::Io { source, .. } if is_refused_by_tls(source) => FIX_CLIENT_CERTIFICATE,
            Self::Sql { source, .. } if io_cause(source).is_some_and(is_refused_by_tls) => {
                FIX_CLIENT_CERTIFICATE
            }
            Self::AuthMethod { .. } => "use scram-sha-256, md5 or cert in pg_hba.conf",
            Self::ChannelBinding { .. } => "use TLS and scram-sha-256, or channel_binding=prefer",
            Self::AuthFailed(_) => {
                "check user and password, and that pg_hba.conf lets this host connect to the \
                 database"
            }
            Self::SlotActive { slot, pid, .. } => return Some(fix_active(slot, *pid)),
            Self::WalRemoved { slot, .. } => {
                return Some(format!("the slot {slot:?} has lost the changes since: {FIX_LOST}"));
            }
            Self::Decoding(_) => "if it recurs, check the server's disk and its log",
            Self::Altered { .. } => {
                "none needed, as it is tried again; if it lasts, end the transaction that holds the lock: \
                 SELECT pid, relation::regclass, mode FROM pg_locks WHERE granted AND mode LIKE \
                 '%Exclusive%'"
            }
            Self::Stuck(stuck) => return Some(stuck.fix()),
            Self::Standby { is_too_old: true, .. } => FIX_STANDBY,
            Self::Standby { .. } => {
                "name the primary in postgres.url, or all hosts and target_session_attrs=read-write; \
                 or set postgres.manage = false, and create the publication on the primary"
            }
            Self::PublicationMissing(_) => {
                "changes since then are in no stream, even with a new publication: rowcast \
                 teardown, then rowcast run, which reads all rows again"
            }
            Self::TooManyWalsenders(_) => "raise max_wal_senders in postgresql.conf and restart",
            Self::TooManySlots(_) => {
                "drop an unused slot (SELECT slot_name FROM pg_replication_slots WHERE NOT active) \
                 or raise max_replication_slots and restart"
            }
            Self::WrongTarget { .. } => {
                "name all hosts in postgres.url, so that the one of this kind can be found"
            }
            Self::SlotMissing { slot, .. } | Self::SlotGone { slot } => {
                return Some(format!(
                    "changes since the slot {slot:?} was dropped can't be read any more: \
                     {FIX_LOST}"
                ));
            }
            Self::Server(error) => {
                return error.hint.clone().or_else(|| fix_of(&error.sqlstate));
            }
            Self::Sql { source, .. } => return source.code().and_then(|code| fix_of(code.code())),
            _ => return None,
        };
        Some(fix.to_owned())
    }

    /// How to go on if it turns out not to pass.
    #[must_use]
    pub(crate) fn ways_on(&self) -> Option<String> {
        match self {
            Self::Decoding(stuck) => Some(stuck.fix()),
            error => error.fix(),
        }
    }
}

fn fix_active(slot: &str, pid: Option<i32>) -> String {
    let slot = postgres_protocol::escape::escape_literal(slot);
    let held = pid.map_or_else(
        || format!("SELECT active_pid FROM pg_replication_slots WHERE slot_name = {slot}"),
        |pid| format!("SELECT * FROM pg_stat_activity WHERE pid = {pid}"),
    );
    format!("stop the other reader, or wait for it: {held}")
}

/// How to continue if changes can't be read any more.
const FIX_LOST: &str = "set postgres.on_gap = \"snapshot\" to read all rows again. Only if the \
                        changes may be lost: rowcast run --accept-gap continues without them";

const FIX_STANDBY: &str =
    "name the primary in postgres.url, or all hosts and target_session_attrs=read-write";

const FIX_CLIENT_CERTIFICATE: &str =
    "check sslcert and sslkey, and that the server's ssl_ca_file holds who signed the certificate";

fn fix_of(sqlstate: &str) -> Option<String> {
    sqlstate::find(sqlstate)?.fix.map(str::to_owned)
}
