//! Tracks tables by OID, so that what was hidden of a table stays hidden after a rename.
//!
//! ```text
//! catalog -- check: at a start, and every discover_interval -+
//!                                                            v
//! stream --- a table is described: before its next row --> judged --> left out, or published
//!                                                            ^
//! topic of the checkpoints --------- remembered -------------+
//! ```
//!
//! 1. What a check finds is made durable before it takes effect: what was hidden once is still
//!    known after a crash.
//! 2. The catalog describes the present and the stream the past, and either may be the first to
//!    have a new name. So both are checked: a table that the catalog has under a name that would
//!    loosen its rules is not in the publication, and one that the stream describes under such a
//!    name is left out by the bridge, from that description on.
//! 3. A table that was left out misses changes. That is noted before the first of them is skipped,
//!    and its rows are read again once it is published.
//!
//! The decision itself is pure: `checkpoint::renames`. Configured names that no table has are found
//! here, too, because the stored names distinguish a typo from a table that was dropped or renamed.

mod stream;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_postgres::Client;

pub(super) use self::stream::Guard;
use super::{Bridge, fresh_client_config};
use crate::checkpoint::{
    DatabaseId, Held, Identity, Looked, Moment, Present, Remembered, Rules, SnapshotReason, look,
};
use crate::config::{Resolved, SnapshotMode, TablePattern, nearest_names, unmatched};
use crate::error::Error;
use crate::kafka::{Checkpoints, Notes};
use crate::lsn::Lsn;
use crate::postgres::preflight::Shortfall;
use crate::postgres::publication::TableName;
use crate::postgres::{self, lineage};
use crate::snapshot::incremental::coordinator::Published;
use crate::snapshot::{Command, Request, SnapshotState, SnapshotStatus};
use crate::state::{LeftOut, LeftOutReason};

/// What is known about tables, over all sessions.
#[derive(Debug, Default)]
pub(super) struct Known {
    place: DatabaseId,
    remembered: BTreeMap<u32, Remembered>,
    /// By OID.
    held: BTreeMap<u32, Held>,
    /// Requests for rows of tables that were left out, by OID.
    asked: BTreeMap<u32, String>,
    /// Judgements of a table's descriptions, by schema, name and columns: whether it is published
    /// so. Descriptions may return: after rows that were read, the stream's last one applies again.
    judged: HashMap<u32, HashMap<Vec<String>, bool>>,
}

/// Shared by the check and the stream.
pub(super) type Shared = Arc<Mutex<Known>>;

/// What a check has found, before it takes effect.
pub(super) struct Findings {
    place: DatabaseId,
    looked: Looked,
    /// What was stored when it began.
    before: BTreeMap<u32, Remembered>,
    /// Settings that can't apply.
    pub(super) shortfalls: Vec<Shortfall>,
    /// What is worth a line in the log, each with its fix.
    pub(super) notes: Vec<(String, String)>,
}

impl Published for Bridge {
    fn settings(&self) -> Resolved {
        self.settings_of_published()
    }

    fn names_inserts(&self) -> bool {
        self.second.is_named()
    }

    fn is_for_missing(&self, request: &str) -> bool {
        self.known().asked.values().any(|asked| asked == request)
    }
}

impl Bridge {
    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Loads what the topic holds at the start of a session.
    pub(super) fn remember(&self, remembered: BTreeMap<u32, Remembered>) {
        let mut known = self.known();
        known.remembered = remembered;
        known.held.clear();
        known.judged.clear();
    }

    /// The settings without the tables that are left out.
    pub(super) fn settings_of_published(&self) -> Resolved {
        without(&self.settings, &self.known().held)
    }

    /// Reads the current names of tables.
    ///
    /// # Errors
    /// When the catalog can't be queried.
    pub(super) async fn look_at_names(
        &self,
        client: &Client,
        through: Lsn,
    ) -> Result<Findings, postgres::Error> {
        let settings = &self.settings;
        let place = lineage::place(client, self.conninfo.database()).await?;
        let before = self.known().remembered.clone();
        let (before, others) = of_place(before, &place);
        let found = lineage::lineage(client, None).await?;
        let rules = rules(settings);
        let has_columns = |oid: u32, of: &_| {
            rules.hiding(of).has_column_rules()
                || before.get(&oid).is_some_and(|before| before.hiding.has_column_rules())
        };
        let names = found.names;
        let present = lineage::with_columns(client, found.tables, has_columns).await?;
        // After everything that the check has seen.
        let wal_end = postgres::client::wal_insert(client).await?;
        let mut looked = look(&before, &present, &rules, &place, Moment { wal_end, through });
        looked.forget.extend(others);
        let (shortfalls, notes) = mistaken(settings, &names, &before, &present);
        Ok(Findings { place, looked, before, shortfalls, notes })
    }

    /// Makes what a check has found durable, then applies it. Logs what is new.
    ///
    /// # Errors
    /// When the brokers do not accept it.
    pub(super) async fn settle_names(&self, findings: Findings) -> Result<(), Error> {
        let Findings { place, looked, before, .. } = findings;
        let changed: Vec<Remembered> = {
            let known = self.known();
            // The next check handles what was noted meanwhile.
            let is_as_it_was = |now: &&Remembered| match known.remembered.get(&now.oid) {
                Some(held) => before.get(&now.oid).is_some_and(|before| before.is_like(held)),
                None => !before.contains_key(&now.oid),
            };
            let behind = |now: &Remembered| {
                let held = known.remembered.get(&now.oid);
                now.is_behind || held.is_some_and(|held| held.is_behind)
            };
            let changed = looked.remember.iter().filter(is_as_it_was);
            changed.map(|now| Remembered { is_behind: behind(now), ..now.clone() }).collect()
        };
        let mut records: Vec<(String, Option<Vec<u8>>)> = Vec::new();
        let key = |oid| Remembered::key(&self.settings.name, oid);
        records.extend(changed.iter().map(|now| (key(now.oid), Some(now.write()))));
        records.extend(looked.forget.iter().map(|oid| (key(*oid), None)));
        self.put(&records).await?;
        {
            let mut known = self.known();
            known.place = place;
            for now in changed {
                let before = known.remembered.insert(now.oid, now.clone());
                if !before.is_some_and(|before| before.is_like(&now)) {
                    known.judged.remove(&now.oid);
                }
            }
            for oid in &looked.forget {
                known.remembered.remove(oid);
                known.judged.remove(oid);
                known.asked.remove(oid);
            }
            // Rows that were requested earlier may be read before this is released.
            known.asked.retain(|oid, _| !looked.held.contains_key(oid));
            known.held.clone_from(&looked.held);
        }
        for (former, name) in &looked.renamed {
            tracing::info!(former, table = name, "table renamed: publishing it under its new name");
        }
        for identity in &looked.replaced {
            let table = format!("{}.{}", identity.schema, identity.table);
            tracing::warn!(
                table,
                "this is not the table that had this name before (dropped and created again, or \
                 swapped by renames): reading its rows; rows of the former table remain in the \
                 topic"
            );
        }
        self.show_held();
        Ok(())
    }

    /// Notes that rows of these tables are requested, for whatever reason.
    pub(super) fn rows_asked(&self, tables: &[TableName], id: &str) {
        let mut known = self.known();
        let is_asked = |of: &&Remembered| {
            let Identity { schema, table, .. } = &of.identity;
            tables.iter().any(|asked| (&asked.schema, &asked.name) == (schema, table))
        };
        let behind = known.remembered.values().filter(|of| of.is_behind);
        let oids: Vec<u32> = behind.filter(is_asked).map(|of| of.oid).collect();
        known.asked.extend(oids.into_iter().map(|oid| (oid, id.to_owned())));
    }

    /// Requests the rows of tables that miss changes. The stream must be running.
    ///
    /// # Errors
    /// When the brokers do not accept the note that rows were requested.
    pub(super) async fn read_again(&self, released: &Released) -> Result<(), Error> {
        let noted = self.control.shown();
        let mut done = Vec::new();
        let mut names = BTreeSet::new();
        let request = Request::new(Vec::new(), None, SnapshotReason::Added);
        {
            let mut known = self.known();
            for (oid, identity) in released {
                match known.asked.get(oid).map(|id| became_of(&noted, id)) {
                    Some(Became::Durable) => done.push(*oid),
                    Some(Became::Nothing) => {}
                    // Dropped: what was read instead may be too old.
                    Some(Became::Dropped) | None => {
                        known.asked.insert(*oid, request.id.clone());
                        let root = identity.root.as_ref();
                        names.insert(root.map_or_else(
                            || (identity.schema.clone(), identity.table.clone()),
                            |root| (root.schema.clone(), root.table.clone()),
                        ));
                    }
                }
            }
        }
        if !names.is_empty() && self.settings.snapshot.mode == SnapshotMode::Never {
            tracing::warn!(
                tables = list(&names),
                "rows of these tables are missing in their topics, and snapshot.mode is never: \
                 request a snapshot of them (rowcast snapshot)"
            );
            done.extend(released.keys());
        } else if !names.is_empty() {
            tracing::info!(tables = list(&names), "reading the rows of these tables again");
            let exactly = |(schema, name): &(String, String)| TablePattern::exact(schema, name);
            let tables = names.iter().map(exactly).collect();
            self.control.ask(Command::Take(Request { tables, ..request }));
        }
        self.caught_up(&done).await
    }

    /// Notes that rows of these tables were requested, and that this is durable.
    async fn caught_up(&self, oids: &[u32]) -> Result<(), Error> {
        let caught_up: Vec<Remembered> = {
            let known = self.known();
            let behind = oids.iter().filter_map(|oid| known.remembered.get(oid));
            behind.map(|of| Remembered { is_behind: false, ..of.clone() }).collect()
        };
        let key = |oid| Remembered::key(&self.settings.name, oid);
        let records: Vec<_> =
            caught_up.iter().map(|now| (key(now.oid), Some(now.write()))).collect();
        self.put(&records).await?;
        let mut known = self.known();
        for now in caught_up {
            known.asked.remove(&now.oid);
            known.remembered.insert(now.oid, now);
        }
        Ok(())
    }

    async fn put(&self, records: &[(String, Option<Vec<u8>>)]) -> Result<(), Error> {
        // Avoids reading the brokers' secrets every time.
        if records.is_empty() {
            return Ok(());
        }
        Ok(self.notes().await?.put(records).await?)
    }

    /// A client that adds to what is stored.
    async fn notes(&self) -> Result<Notes, Error> {
        let config = fresh_client_config(&self.settings).await?;
        Ok(Checkpoints::new(&config, &self.settings).notes()?)
    }

    /// Reports the tables that are left out, in the log, the status and a metric.
    fn show_held(&self) {
        let held = self.known().held.clone();
        for oid in self.left_out.oids(LeftOutReason::Renamed) {
            if !held.contains_key(&oid) {
                self.left_out.remove(oid);
            }
        }
        let left_out = |(oid, held): (u32, Held)| {
            let error = format!(
                "left out: {held}; none of its rows are published until that is resolved, and \
                 then its rows are read again"
            );
            let Held { schema, table, fix, .. } = held;
            let reason = LeftOutReason::Renamed;
            (oid, LeftOut { schema, table, reason, error, fix })
        };
        self.left_out.put_all(held.into_iter().map(left_out));
    }
}

/// The outcome of a request for rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Became {
    /// It is in a checkpoint: its rows will be read, whatever happens.
    Durable,
    /// It was dropped, because the same request was running.
    Dropped,
    /// Nothing yet, or it was refused: only a restart requests the rows again.
    Nothing,
}

fn became_of(noted: &[SnapshotStatus], id: &str) -> Became {
    use SnapshotState::{Failed, Stopped};
    let mut states = noted.iter().filter(|of| of.id == id).map(|of| of.state).peekable();
    let is_there = states.peek().is_some();
    let mut became = if is_there { Became::Dropped } else { Became::Nothing };
    for state in states {
        match state {
            Stopped => {}
            Failed if became == Became::Dropped => became = Became::Nothing,
            Failed => {}
            _ => return Became::Durable,
        }
    }
    became
}

/// The tables whose rows are to be read again, by OID.
pub(super) type Released = BTreeMap<u32, Identity>;

impl Findings {
    /// Whether the settings hide something else of a table than the former ones did, as far as that
    /// is stored.
    pub(super) fn keeps_back_otherwise(&self, settings: &Resolved, table: &TableName) -> bool {
        let name = (table.schema.as_str(), table.name.as_str());
        let is_it = |of: &&Remembered| of.identity.published(settings.via_root) == name;
        let before = self.before.values().find(is_it);
        before.is_none_or(|before| before.hiding != rules(settings).hiding(&before.identity))
    }

    /// What to read again once it takes effect.
    pub(super) fn released(&self) -> Released {
        self.looked.released.clone()
    }

    /// The settings without the tables that have to be left out.
    pub(super) fn settings_of_published(&self, settings: &Resolved) -> Resolved {
        without(settings, &self.looked.held)
    }

    /// Logs what is new.
    pub(super) fn tell(&self) {
        for (note, fix) in &self.notes {
            tracing::warn!(fix, "{note}");
        }
    }
}

fn without(settings: &Resolved, held: &BTreeMap<u32, Held>) -> Resolved {
    let names = held.values().map(|of| (of.schema.as_str(), of.table.as_str()));
    let captured = settings.captured.clone().without(names);
    Resolved { captured, ..settings.clone() }
}

const fn rules(settings: &Resolved) -> Rules<'_> {
    Rules {
        captured: &settings.captured,
        tables: &settings.tables,
        signals: settings.signal_table.as_ref(),
        via_root: settings.via_root,
    }
}

/// What is stored for this server and database, and the OIDs stored for another, which mean nothing
/// here.
fn of_place(
    remembered: BTreeMap<u32, Remembered>,
    place: &DatabaseId,
) -> (BTreeMap<u32, Remembered>, Vec<u32>) {
    let is_known = |of: &DatabaseId| {
        let [a, b] = [&of.system_identifier, &place.system_identifier];
        of.database == place.database && (a == b || a.is_empty() || b.is_empty())
    };
    let (here, others): (BTreeMap<_, _>, BTreeMap<_, _>) =
        remembered.into_iter().partition(|(_, of)| is_known(&of.place));
    (here, others.into_keys().collect())
}

/// Settings that name what does not exist: those that would hide something, and the others.
fn mistaken(
    settings: &Resolved,
    names: &[(String, String)],
    before: &BTreeMap<u32, Remembered>,
    present: &[Present],
) -> (Vec<Shortfall>, Vec<(String, String)>) {
    let were = before.values().flat_map(|of| {
        let own = (of.identity.schema.as_str(), of.identity.table.as_str());
        let formers = of.formers.iter().map(|(schema, table)| (schema.as_str(), table.as_str()));
        formers.chain([own, of.identity.published(true)])
    });
    let were: BTreeSet<(&str, &str)> = were.collect();
    let are = names.iter().map(|(schema, table)| (schema.as_str(), table.as_str()));
    let tables: Vec<(&str, &str)> = are.chain(were.iter().copied()).collect();
    let (mut shortfalls, mut notes) = (Vec::new(), Vec::new());
    for found in unmatched(&settings.captured, &settings.tables, &tables) {
        match found.hides {
            true => shortfalls.push(Shortfall { cause: found.cause, fix: found.fix }),
            false => notes.push((found.cause, found.fix)),
        }
    }
    for table in present {
        let before = before.get(&table.oid);
        let found = mistaken_columns(settings, table, before);
        // DDL of the application is not an error of the configuration: it may have dropped the
        // column since, or given the table a name for which the rule was written with another table
        // in mind.
        let is_ddl = match before {
            Some(before) => {
                before.identity != table.identity
                    || before.hiding == rules(settings).hiding(&table.identity)
            }
            None => were.contains(&table.identity.published(settings.via_root)),
        };
        match is_ddl {
            true => notes.extend(found.into_iter().map(|of| (of.cause, of.fix))),
            false => shortfalls.extend(found),
        }
    }
    (shortfalls, notes)
}

/// Exact names of columns that a table does not have and never had, if the table is named exactly.
fn mistaken_columns(
    settings: &Resolved,
    table: &Present,
    before: Option<&Remembered>,
) -> Vec<Shortfall> {
    let (schema, name) = table.identity.published(settings.via_root);
    let pattern = settings.tables.pattern(schema, name).filter(|pattern| pattern.is_exact());
    let Some((pattern, rules)) = pattern.zip(settings.tables.columns(schema, name)) else {
        return Vec::new();
    };
    // A partition has the columns of its root.
    if table.identity.root.is_some() || !settings.captured.matches(schema, name) {
        return Vec::new();
    }
    let were = before.into_iter().flat_map(|before| {
        let is_there = |number: &i16| !before.dropped_columns.contains_key(number);
        before.columns.iter().filter(move |(number, _)| is_there(number)).map(|(_, name)| name)
    });
    let columns: Vec<String> = table.columns.values().chain(were).cloned().collect();
    let unknown = rules.unknown_hidden(&columns);
    unknown
        .map(|(key, column)| {
            let meant = match nearest_names(column, table.columns.values().cloned()).as_slice() {
                [] => "correct the name".to_owned(),
                names => format!("correct the name: {}", names.join(", or ")),
            };
            Shortfall {
                cause: format!(
                    "tables.{:?}.{key} names the column {column:?}, which {schema}.{name} does not \
                     have",
                    pattern.as_str()
                ),
                fix: format!(
                    "{meant}; if the column is added later, write it as a glob, which may match \
                     nothing yet: {:?}",
                    crate::config::later(column)
                ),
            }
        })
        .collect()
}

fn list(names: &BTreeSet<(String, String)>) -> String {
    let names: Vec<String> =
        names.iter().map(|(schema, name)| format!("{schema}.{name}")).collect();
    names.join(", ")
}
