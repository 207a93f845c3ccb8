//! Classifies errors that occur while the server decodes for a slot, or is about to.
//!
//! One code has many causes there: 58P01 a WAL segment that was removed, and a snapshot file that
//! is missing for a moment; XX000 a race with DDL, and a row that is too large. So the routine and
//! the message decide, and if neither is clear, the slot's own state does, which the next session
//! reads. Routines have the same names in every language and version: `walsender.c`, `xlogutils.c`,
//! `slot.c`, `snapbuild.c`, `reorderbuffer.c`, `mcxt.c`, `stringinfo.c`.

use super::ServerError;
use crate::lsn::Lsn;
use crate::postgres::place::StreamPlace;

/// What an error means for the slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// What the slot needs is gone.
    Lost,
    /// The server can't decode what comes next. Only retries show whether it ever can.
    Stuck,
    /// It is not from decoding.
    Other,
}

/// Routines that read or write files of a slot: their errors are caused by the disk, even if the
/// code is that of a missing permission.
const FILES: [&str; 11] = [
    "SnapBuild",
    "ReorderBuffer",
    "SaveSlotToPath",
    "CreateSlotOnDisk",
    "RestoreSlotFromDisk",
    "XLogRead",
    "WALRead",
    "WalSnd",
    "wal_segment_open",
    "fsync_fname",
    "durable_",
];

/// Classifies an error.
pub(super) fn meaning(error: &ServerError) -> Meaning {
    if is_removed_wal(error) || is_invalidation(error) {
        return Meaning::Lost;
    }
    let routine = error.routine.as_deref().unwrap_or_default();
    let is_of_files = FILES.iter().any(|prefix| routine.starts_with(prefix));
    match error.sqlstate.as_str() {
        "55000" | "54000" | "XX000" => Meaning::Stuck,
        "42501" if is_of_files => Meaning::Stuck,
        code if code.starts_with("58") => Meaning::Stuck,
        _ => Meaning::Other,
    }
}

/// Whether a WAL segment is gone: under 58P01, or XX000 if another error number was left behind.
fn is_removed_wal(error: &ServerError) -> bool {
    let routine = error.routine.as_deref().unwrap_or_default();
    let has_no_file = error.sqlstate == "58P01";
    let is_said = error.message.starts_with("requested WAL segment ")
        && error.message.ends_with(" has already been removed");
    is_said
        || routine == "CheckXLogRemoved"
        || (has_no_file && matches!(routine, "WalSndSegmentOpen" | "wal_segment_open"))
}

/// Whether the server reports that it has invalidated the slot. In other languages the slot's state
/// shows it.
fn is_invalidation(error: &ServerError) -> bool {
    let says = |text: &str| {
        let detail = error.detail.as_deref().unwrap_or_default();
        error.message.contains(text) || detail.contains(text)
    };
    error.sqlstate == "55000"
        && (says("has been invalidated") || says("can no longer get changes from"))
}

/// Whether a row is too large as text: PostgreSQL allocates no more than 1 GB in one piece.
pub(super) fn is_too_large(error: &ServerError) -> bool {
    let routine = error.routine.as_deref().unwrap_or_default();
    match error.sqlstate.as_str() {
        "XX000" => {
            error.message.starts_with("invalid memory alloc request size")
                || routine == "MemoryContextSizeFailure"
        }
        "54000" => routine == "enlargeStringInfo",
        _ => false,
    }
}

/// Releases that distributed invalidations of transactions repeatedly, until they exceeded a
/// gigabyte: only these fail in this way without a large row.
const MAY_2025: [u32; 4] = [140_018, 150_013, 160_009, 170_005];

/// The release that fixes it.
fn release_to_install(server_version: u32) -> Option<String> {
    let is_it = MAY_2025.contains(&server_version);
    is_it.then(|| format!("{}.{}", server_version / 10_000, server_version % 10_000 + 1))
}

/// What the server can't decode, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stuck {
    /// The slot; `None` if tables are read.
    pub slot: Option<String>,
    /// The stream's position.
    pub place: StreamPlace,
    /// The server's version; zero if unknown.
    pub server_version: u32,
    /// As reported.
    pub source: Box<ServerError>,
}

impl Stuck {
    /// The same without the server's text. The routine still shows whether a row is too large.
    pub(super) fn without_text(&self) -> Self {
        let routine = is_too_large(&self.source).then_some(match self.source.sqlstate.as_str() {
            "54000" => "enlargeStringInfo",
            _ => "MemoryContextSizeFailure",
        });
        let routine = routine.map(str::to_owned);
        let source = Box::new(ServerError { routine, ..self.source.without_text() });
        Self { source, ..self.clone() }
    }

    /// What failed.
    pub(super) fn doing(&self) -> String {
        let Some(slot) = &self.slot else {
            return "the server can't read the rows of a table".to_owned();
        };
        match self.place {
            StreamPlace { commit: Some(commit), last } => format!(
                "the server can't decode what follows {last} for the slot {slot:?}, in the \
                 transaction that commits at {commit}"
            ),
            StreamPlace { last: Lsn::ZERO, .. } => {
                format!("the server can't decode the WAL for the slot {slot:?}")
            }
            StreamPlace { last, .. } => {
                format!("the server can't decode what follows {last} for the slot {slot:?}")
            }
        }
    }

    /// Why it is permanent, once it has failed in the same way several times.
    pub(super) fn cause(&self) -> &'static str {
        match is_too_large(&self.source) {
            true if release_to_install(self.server_version).is_some() => {
                "this release fails in this way if many transactions with DDL run at a time, or \
                 a row is more than 1 GB as text"
            }
            true => "a row is more than 1 GB as text, and the server can't send one",
            false => "it failed in the same way each time",
        }
    }

    /// How to continue. Lines that are not SQL are comments.
    pub(super) fn fix(&self) -> String {
        let mut lines = Vec::new();
        if let Some(release) = release_to_install(self.server_version) {
            lines.push(format!(
                "-- install PostgreSQL {release} or later, which fixes this, and start rowcast again"
            ));
            lines.push("-- if it recurs, a row is too large:".to_owned());
        } else if !is_too_large(&self.source) {
            lines.push(
                "-- install the newest minor release of the server, see its log, and start \
                 rowcast again; if it recurs:"
                    .to_owned(),
            );
        }
        if is_too_large(&self.source) {
            lines.push(
                "-- keep such rows out (a bytea counts twice): make the row smaller, or set \
                 exclude_columns for its table in [tables]"
                    .to_owned(),
            );
        }
        if let (Some(slot), Some(commit)) = (&self.slot, self.place.commit) {
            let slot = postgres_protocol::escape::escape_literal(slot);
            let beyond = Lsn::from(commit.as_u64().saturating_add(1));
            lines.push(
                "-- then skip this one transaction, which is not published; all others are:"
                    .to_owned(),
            );
            lines.push(format!(
                "SELECT pg_catalog.pg_replication_slot_advance({}, '{beyond}');",
                slot.trim()
            ));
            lines.push(
                "-- continue with: rowcast run --accept-gap; and read the tables again that it \
                 wrote to: rowcast snapshot"
                    .to_owned(),
            );
        } else if self.slot.is_some() {
            lines.push(
                "-- or start over: rowcast teardown, then rowcast run, which reads all rows"
                    .to_owned(),
            );
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(sqlstate: &str, routine: &str, message: &str) -> ServerError {
        ServerError {
            sqlstate: sqlstate.to_owned(),
            routine: Some(routine.to_owned()),
            message: message.to_owned(),
            ..ServerError::default()
        }
    }

    #[test]
    fn only_removed_wal_and_invalidations_are_lost_whatever_the_code() {
        let removed = "requested WAL segment 000000010000000000000001 has already been removed";
        let open = "could not open file \"pg_logical/snapshots/0-15.snap.7.tmp\": No such file";
        let rename = "could not rename file \"pg_logical/snapshots/0-15.snap.7.tmp\"";
        let spill = "could not open file \"pg_replslot/s/xid-7-lsn-0-1.spill\"";
        let exists = "could not create file \"pg_replslot/s/state.tmp\": File exists";
        for (sqlstate, routine, message, meant) in [
            ("58P01", "WalSndSegmentOpen", removed, Meaning::Lost),
            ("58P01", "WalSndSegmentOpen", "das WAL-Segment ist weg", Meaning::Lost),
            ("58P01", "wal_segment_open", removed, Meaning::Lost),
            ("XX000", "CheckXLogRemoved", removed, Meaning::Lost),
            ("XX000", "", removed, Meaning::Lost),
            ("58P01", "SnapBuildSerialize", open, Meaning::Stuck),
            ("58P01", "SnapBuildSerialize", rename, Meaning::Stuck),
            ("58P01", "ReorderBufferRestoreChanges", spill, Meaning::Stuck),
            ("58P02", "SaveSlotToPath", exists, Meaning::Stuck),
            ("58030", "ReorderBufferRestoreChanges", "could not read", Meaning::Stuck),
            ("42501", "SnapBuildSerialize", "could not open file", Meaning::Stuck),
            ("42501", "WalSndSegmentOpen", "could not open file", Meaning::Stuck),
            ("42501", "aclcheck_error", "permission denied for function f", Meaning::Other),
            ("55000", "StartLogicalReplication", "cannot read from the slot", Meaning::Stuck),
            ("XX000", "RelationIdGetRelation", "could not open relation", Meaning::Stuck),
            ("57P01", "ProcessInterrupts", "terminating connection", Meaning::Other),
        ] {
            assert_eq!(meaning(&error(sqlstate, routine, message)), meant, "{sqlstate} {message}");
        }
        let detail =
            "This slot has been invalidated because it exceeded the maximum reserved size.";
        let mut invalid = error("55000", "StartLogicalReplication", "cannot read from the slot");
        invalid.detail = Some(detail.to_owned());
        assert_eq!(meaning(&invalid), Meaning::Lost);
    }

    #[test]
    fn the_releases_of_may_2025_name_the_one_to_install() {
        let too_large = error("XX000", "palloc", "invalid memory alloc request size 1132462083");
        let stuck = |server_version, source: &ServerError| Stuck {
            slot: Some("s".to_owned()),
            place: StreamPlace { last: Lsn::from(7), commit: Some(Lsn::from(9)) },
            server_version,
            source: Box::new(source.clone()),
        };
        for (version, release) in
            [(140_018, "14.19"), (150_013, "15.14"), (160_009, "16.10"), (170_005, "17.6")]
        {
            let fix = stuck(version, &too_large).fix();
            assert!(fix.starts_with(&format!("-- install PostgreSQL {release} or later")), "{fix}");
        }
        for version in [0, 140_019, 170_004, 180_000] {
            let fix = stuck(version, &too_large).fix();
            assert!(fix.starts_with("-- keep such rows out"), "{fix}");
        }
        let lookup = error("XX000", "x", "cache lookup failed for relation 7");
        assert!(stuck(170_005, &lookup).fix().contains("advance('s', '0/A');"));
    }
}
