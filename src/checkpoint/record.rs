//! The checkpoint as stored in its topic: a JSON object with the pipeline's name as key.
//!
//! A reader takes what it knows and leaves out the rest, so fields can be added under the same
//! version; a version that is newer than ours says that something would be misread, and is refused.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::progress::Progress;
use super::snapshots::Snapshots;
use crate::change::Position;
use crate::lsn::Lsn;

/// The version that is written. Readers take it and all before it.
pub const VERSION: u32 = 1;

/// What a pipeline published, of which source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Where the changes come from.
    pub source: Source,
    /// Counts the times that the stream began again instead of going on. Of two checkpoints the one
    /// with the higher generation is newer, then the one that is further.
    pub generation: u64,
    /// Up to here everything is published.
    pub progress: Progress,
    /// The snapshots that are not finished.
    pub snapshots: Arc<Snapshots>,
}

/// Where changes come from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The cluster's own number, the same on its standbys.
    pub system_identifier: String,
    /// Counts the cluster's failovers.
    pub timeline: u32,
    /// The database.
    pub database: String,
    /// The replication slot.
    pub slot: String,
}

/// The fields of the JSON object, in their order.
#[derive(Serialize, Deserialize)]
struct Fields<S, T> {
    version: u32,
    #[serde(flatten)]
    source: S,
    generation: u64,
    through_lsn: Lsn,
    commit_lsn: Lsn,
    ordinal: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    snapshot: Option<T>,
}

#[derive(Deserialize)]
struct VersionOnly {
    version: u32,
}

/// A checkpoint that can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// It was written by a newer rowcast, which means something by it that we don't know.
    #[error("it has version {found}, and this rowcast reads versions up to {VERSION}")]
    Newer {
        /// Its version.
        found: u32,
        /// Where its changes come from, if it says so as we do.
        of: Option<Box<Source>>,
    },
    /// It is no checkpoint.
    #[error("it is not a checkpoint: {source}")]
    Malformed {
        /// What the JSON reader has against it.
        source: serde_json::Error,
    },
}

impl Checkpoint {
    /// Whether this one is newer than `other`, whatever their order in the topic: a copy that was
    /// replaced may still have written after the one that replaced it.
    #[must_use]
    pub fn is_newer_than(&self, other: &Self) -> bool {
        (self.generation, self.progress) >= (other.generation, other.progress)
    }

    /// Says that a pipeline is about to begin and has published nothing: written before its slot is
    /// made, so that a slot which nobody came to use is not taken for one to go on with.
    #[must_use]
    pub fn intent(source: Source, generation: u64) -> Self {
        let progress = Progress::default();
        Self { source, generation, progress, snapshots: Arc::default() }
    }

    /// Whether it only says that.
    #[must_use]
    pub fn is_intent(&self) -> bool {
        self.progress == Progress::default()
    }

    /// Replaces what is in `out` by the JSON object.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.clear();
        let Progress { through_lsn, position } = self.progress;
        let fields = Fields {
            version: VERSION,
            source: &self.source,
            generation: self.generation,
            through_lsn,
            commit_lsn: position.commit_lsn,
            ordinal: position.ordinal,
            snapshot: (!self.snapshots.is_empty()).then_some(self.snapshots.as_ref()),
        };
        // Numbers and texts always have a form in JSON, and a Vec takes every byte.
        let _ = serde_json::to_writer(out, &fields);
    }

    /// Reads one back.
    ///
    /// # Errors
    /// When it is newer than we are, or none.
    pub fn read(json: &[u8]) -> Result<Self, RecordError> {
        let malformed = |source| RecordError::Malformed { source };
        let VersionOnly { version: found } = serde_json::from_slice(json).map_err(malformed)?;
        if found > VERSION {
            let of = serde_json::from_slice(json).ok();
            return Err(RecordError::Newer { found, of });
        }
        let fields: Fields<Source, Snapshots> = serde_json::from_slice(json).map_err(malformed)?;
        let position = Position { commit_lsn: fields.commit_lsn, ordinal: fields.ordinal };
        Ok(Self {
            source: fields.source,
            generation: fields.generation,
            progress: Progress { through_lsn: fields.through_lsn, position },
            snapshots: Arc::new(fields.snapshot.unwrap_or_default()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::snapshots::{
        KeyProgress, LeafProgress, LeftOutTable, PageProgress, SnapshotReason, SnapshotRequest,
        TableProgress, TableSnapshot,
    };

    /// What is in the topics of users: it must be read for ever.
    const GOLDEN: &str = r#"{"version":1,"system_identifier":"7448211963417423982","timeline":3,"database":"taxi","slot":"rowcast_taxi","generation":2,"through_lsn":"16/B374D900","commit_lsn":"16/B374D8A8","ordinal":42}"#;

    const SNAPSHOTS: &str = concat!(
        r#"{"tables":[{"id":"first","schema":"public","table":"zones","reason":"first","#,
        r#""progress":"waiting"},{"id":"first","schema":"public","table":"rides","#,
        r#""reason":"first","progress":{"pages":{"lsn":"16/B374D900","shows":"771:774:772","leaves":["#,
        r#"{"oid":16400,"filenode":16404,"done":[[0,256],[512,768]]}]}}},"#,
        r#"{"id":"b1","schema":"public","table":"trips","reason":"asked","#,
        r#""condition":"fare > 5","is_paused":true,"partition":16405,"#,
        r#""progress":{"keys":{"columns":["id"],"missing":"id < 3","after":["7"],"#,
        r#""last":["9000"]}}}],"#,
        r#""requests":[{"id":"b2","tables":["public.z*"],"condition":"id > 1","#,
        r#""reason":"asked","partition":16410}],"#,
        r#""left_out":[{"oid":16408,"schema":"public","table":"x y"}],"#,
        r#""is_only":true,"partitions_seen":"771:774:"}"#,
    );

    fn checkpoint() -> Checkpoint {
        Checkpoint {
            source: Source {
                system_identifier: "7448211963417423982".to_owned(),
                timeline: 3,
                database: "taxi".to_owned(),
                slot: "rowcast_taxi".to_owned(),
            },
            generation: 2,
            progress: Progress {
                through_lsn: Lsn::from(0x16_B374_D900),
                position: Position { commit_lsn: Lsn::from(0x16_B374_D8A8), ordinal: 42 },
            },
            snapshots: Arc::default(),
        }
    }

    #[test]
    fn it_is_written_and_read_as_documented() {
        let mut json = b"left over".to_vec();
        checkpoint().write(&mut json);
        assert_eq!(std::str::from_utf8(&json).unwrap(), GOLDEN);
        assert_eq!(Checkpoint::read(GOLDEN.as_bytes()).unwrap(), checkpoint());
    }

    #[test]
    fn fields_that_a_later_rowcast_adds_are_left_out() {
        let later = GOLDEN.replace("\"ordinal\"", "\"moon\":{\"phase\":[1]},\"ordinal\"");
        assert_eq!(Checkpoint::read(later.as_bytes()).unwrap(), checkpoint());
    }

    #[test]
    fn snapshots_are_written_and_read_as_documented() {
        let json = format!("{},\"snapshot\":{SNAPSHOTS}}}", GOLDEN.trim_end_matches('}'));
        let table = |name: &str, progress| TableSnapshot {
            partition: None,
            id: "first".to_owned(),
            schema: "public".to_owned(),
            table: name.to_owned(),
            reason: SnapshotReason::First,
            condition: None,
            is_paused: false,
            progress,
        };
        let leaf = LeafProgress { oid: 16_400, filenode: 16_404, done: vec![(0, 256), (512, 768)] };
        let pages = PageProgress {
            lsn: Lsn::from(0x16_B374_D900),
            shows: "771:774:772".to_owned(),
            leaves: vec![leaf],
        };
        let keys = KeyProgress {
            columns: vec!["id".to_owned()],
            missing: Some("id < 3".to_owned()),
            after: Some(vec!["7".to_owned()]),
            last: Some(vec!["9000".to_owned()]),
        };
        let asked = TableSnapshot {
            id: "b1".to_owned(),
            reason: SnapshotReason::Asked,
            condition: Some("fare > 5".to_owned()),
            is_paused: true,
            partition: Some(16_405),
            ..table("trips", TableProgress::Keys(keys))
        };
        let waiting = table("zones", TableProgress::Waiting);
        let tables = vec![waiting, table("rides", TableProgress::Pages(pages)), asked];
        let requests = vec![SnapshotRequest {
            id: "b2".to_owned(),
            tables: vec!["public.z*".to_owned()],
            condition: Some("id > 1".to_owned()),
            reason: SnapshotReason::Asked,
            partition: Some(16_410),
        }];
        let (schema, table) = ("public".to_owned(), "x y".to_owned());
        let left_out = vec![LeftOutTable { oid: 16_408, schema, table }];
        let partitions_seen = Some("771:774:".to_owned());
        let snapshots = Snapshots { tables, requests, left_out, is_only: true, partitions_seen };
        let snapshots = Arc::new(snapshots);
        let written = Checkpoint { snapshots, ..checkpoint() };
        let mut out = Vec::new();
        written.write(&mut out);
        assert_eq!(std::str::from_utf8(&out).unwrap(), json);
        assert_eq!(Checkpoint::read(json.as_bytes()).unwrap(), written);
    }

    #[test]
    fn a_request_alone_is_kept_and_snapshots_without_the_field_have_none() {
        let request = SnapshotRequest::new(Vec::new(), None, SnapshotReason::Asked);
        let snapshots = Snapshots { requests: vec![request], ..Snapshots::default() };
        let written = Checkpoint { snapshots: Arc::new(snapshots), ..checkpoint() };
        let mut out = Vec::new();
        written.write(&mut out);
        assert_eq!(Checkpoint::read(&out).unwrap(), written);
        let before = format!("{},\"snapshot\":{{\"tables\":[]}}}}", GOLDEN.trim_end_matches('}'));
        assert_eq!(Checkpoint::read(before.as_bytes()).unwrap(), checkpoint());
    }

    #[test]
    fn a_newer_version_is_refused_whatever_else_it_holds() {
        let error = Checkpoint::read(br#"{"version":2,"moved":{}}"#).unwrap_err();
        assert_eq!(error.to_string(), "it has version 2, and this rowcast reads versions up to 1");
        let later = GOLDEN.replace("\"version\":1", "\"version\":2");
        match Checkpoint::read(later.as_bytes()) {
            Err(RecordError::Newer { of, .. }) => {
                assert_eq!(of.as_deref(), Some(&checkpoint().source), "whose it is can be told");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_no_checkpoint_is_refused() {
        for text in ["", "null", "{}", r#"{"version":1}"#, r#"{"version":"1"}"#] {
            let error = Checkpoint::read(text.as_bytes()).unwrap_err();
            assert!(matches!(error, RecordError::Malformed { .. }), "{text}: {error}");
        }
        assert!(Checkpoint::read(GOLDEN.replace("16/", "16-").as_bytes()).is_err());
    }

    #[test]
    fn the_further_of_a_generation_counts_and_a_new_generation_before_all() {
        let (old, mut further) = (checkpoint(), checkpoint());
        further.progress.position.ordinal += 1;
        assert!(further.is_newer_than(&old) && !old.is_newer_than(&further));
        let anew = Checkpoint { generation: 3, progress: Progress::default(), ..checkpoint() };
        assert!(anew.is_newer_than(&further) && !further.is_newer_than(&anew));
    }
}
