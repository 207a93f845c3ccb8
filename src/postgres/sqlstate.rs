//! The table of SQLSTATEs: which errors are temporary, and the fix of each.
//!
//! A code that is not here is looked up by its class, its first two characters; one whose class is
//! not here either needs an operator. Errors of commands about a slot, or in the stream, are
//! classified before ([`Error::about_slot`](super::Error), `in_stream_of`); the table covers all
//! other cases.
//!
//! `docs/faults.md` has the same codes and texts, held by a test.
//!
//! Codes: <https://www.postgresql.org/docs/current/errcodes-appendix.html>

/// One error code or class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Condition {
    /// Five characters, or the two of a class.
    pub(crate) code: &'static str,
    /// Its name in Postgres' list.
    pub(crate) name: &'static str,
    /// Whether the same may work later without anyone acting on rowcast or its rights.
    pub(crate) heals: bool,
    /// The fix if it is not temporary, or lasts too long.
    pub(crate) fix: Option<&'static str>,
}

const fn heals(code: &'static str, name: &'static str, fix: Option<&'static str>) -> Condition {
    Condition { code, name, heals: true, fix }
}

const fn stays(code: &'static str, name: &'static str, fix: &'static str) -> Condition {
    Condition { code, name, heals: false, fix: Some(fix) }
}

const FIX_CORRUPTED: &str = "the server's own data is damaged: see its log, and restore from a \
                             backup or promote a standby";

const FIX_DISK: Option<&str> = Some("check the server's disk and its log");

/// Every known code, in order.
pub(crate) const CONDITIONS: &[Condition] = &[
    heals("08", "connection_exception", None),
    stays(
        "08P01",
        "protocol_violation",
        "point postgres.url at Postgres itself: a pooler does not pass on replication",
    ),
    stays(
        "0A000",
        "feature_not_supported",
        "point postgres.url at a PostgreSQL of version 14 or later, and not at a pooler",
    ),
    // Two copies that start for the first time create the same objects; the later one finds them.
    heals("23505", "unique_violation", None),
    heals(
        "25006",
        "read_only_sql_transaction",
        Some("name the primary in postgres.url, or all hosts and target_session_attrs=read-write"),
    ),
    stays(
        "28",
        "invalid_authorization_specification",
        "check user and password, and that pg_hba.conf lets this host connect to the database",
    ),
    stays(
        "3D000",
        "invalid_catalog_name",
        "name an existing database in postgres.url: it was dropped or renamed",
    ),
    heals("40", "transaction_rollback", None),
    stays(
        "42501",
        "insufficient_privilege",
        "grant the role again what the message names: ALTER ROLE ... REPLICATION, or GRANT",
    ),
    // As 23505, seen a moment later.
    heals("42710", "duplicate_object", None),
    heals("53", "insufficient_resources", None),
    heals(
        "53100",
        "disk_full",
        Some(
            "free space on the server's disk; which slots hold WAL: SELECT slot_name, active, \
             pg_size_pretty(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)) FROM \
             pg_replication_slots",
        ),
    ),
    heals(
        "53300",
        "too_many_connections",
        Some("end sessions that are not needed, or raise max_connections and restart"),
    ),
    stays(
        "53400",
        "configuration_limit_exceeded",
        "drop an unused slot (SELECT slot_name FROM pg_replication_slots WHERE NOT active) or \
         raise max_replication_slots and restart",
    ),
    heals("55006", "object_in_use", None),
    heals("55P03", "lock_not_available", None),
    heals("57", "operator_intervention", None),
    heals("57P01", "admin_shutdown", None),
    heals("57P02", "crash_shutdown", None),
    heals("57P03", "cannot_connect_now", None),
    stays(
        "57P04",
        "database_dropped",
        "the database was dropped while it was read: name another in postgres.url",
    ),
    heals("58", "system_error", FIX_DISK),
    heals("58030", "io_error", FIX_DISK),
    // Among them races with DDL, such as `tuple concurrently updated`.
    heals("XX000", "internal_error", Some("if it recurs, see the server's log")),
    stays("XX001", "data_corrupted", FIX_CORRUPTED),
    stays("XX002", "index_corrupted", FIX_CORRUPTED),
];

/// The entry of a code, or of its class.
pub(crate) fn find(sqlstate: &str) -> Option<&'static Condition> {
    let of = |code: &str| CONDITIONS.iter().find(|condition| condition.code == code);
    of(sqlstate).or_else(|| of(sqlstate.get(..2)?))
}

/// Whether a retry may succeed.
pub(crate) fn passes(sqlstate: &str) -> bool {
    find(sqlstate).is_some_and(|condition| condition.heals)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_ordered_and_stand_once() {
        assert!(CONDITIONS.is_sorted_by(|a, b| a.code < b.code));
        assert!(CONDITIONS.iter().all(|condition| matches!(condition.code.len(), 2 | 5)));
    }

    #[test]
    fn a_code_of_its_own_comes_before_its_class_and_an_unknown_one_needs_someone() {
        assert_eq!(find("57P04").map(|found| found.name), Some("database_dropped"));
        assert_eq!(find("57P05").map(|found| found.name), Some("operator_intervention"));
        assert!(passes("57014") && passes("08006") && !passes("08P01"));
        assert!(find("22P02").is_none() && !passes("22P02") && !passes(""));
    }

    #[test]
    fn what_needs_someone_says_what_to_do() {
        for condition in CONDITIONS {
            assert!(condition.heals || condition.fix.is_some(), "{condition:?}");
        }
    }

    #[test]
    fn the_manual_has_every_condition_with_what_becomes_of_it() {
        let manual = include_str!("../../docs/faults.md");
        let mut missing = Vec::new();
        for Condition { code, name, heals, fix } in CONDITIONS {
            let does = if *heals { "tried again" } else { "exit 69" };
            let fix = fix.unwrap_or("none needed");
            let row = format!("| `{code}` {name} | {does} | {fix} |");
            if !manual.lines().any(|line| line == row) {
                missing.push(row);
            }
        }
        assert!(missing.is_empty(), "docs/faults.md lacks the rows\n{}", missing.join("\n"));
    }
}
