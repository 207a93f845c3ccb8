//! Judges a table as the stream describes it, before its next row.
//!
//! Publishers call it, on threads that may wait. It queries the catalog only if the name alone does
//! not decide: a table with its former name and no hidden columns costs one map look-up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio_postgres::Client;

use super::rules;
use crate::backoff::{Backoff, Repeats};
use crate::bridge::Bridge;
use crate::change::Relation;
use crate::checkpoint::{Fate, Held, Identity, Remembered, named_in_stream};
use crate::error::Error;
use crate::kafka::Notes;
use crate::pipeline::Stop;
use crate::postgres::{ConnectOptions, lineage};

/// Most judgements that are kept per table.
const JUDGED: usize = 16;

/// Judges tables for the publishers of a session.
pub(crate) struct Guard {
    bridge: Bridge,
    runtime: Handle,
    stop: Arc<Stop>,
    client: tokio::sync::Mutex<Option<Client>>,
    /// Kept open: an application may create tables all the time, and a new client takes longer than
    /// a record.
    notes: tokio::sync::Mutex<Option<Notes>>,
}

/// A table's current state in the catalog.
#[derive(Default)]
struct Now {
    /// `None` if it is gone.
    identity: Option<Identity>,
    columns: BTreeMap<i16, String>,
}

/// What to do with a table that the stream describes.
enum Judgement {
    Publish,
    /// It is published under its name, which is to be stored.
    Note(Box<Remembered>),
    /// It must not be published under its name; whether changes of it are missing because of that
    /// (none are for a partition that is published with its root).
    Leave {
        is_behind: bool,
    },
    /// Its rules, or those of its partition, would be lost.
    Hold {
        oid: u32,
        held: Held,
    },
}

impl Guard {
    pub(crate) fn new(bridge: &Bridge, stop: &Arc<Stop>) -> Self {
        Self {
            bridge: bridge.clone(),
            runtime: Handle::current(),
            stop: Arc::clone(stop),
            client: tokio::sync::Mutex::default(),
            notes: tokio::sync::Mutex::default(),
        }
    }

    /// The OID of the table that must not be published from this description on, if any. Blocks.
    ///
    /// # Errors
    /// When the catalog can't be queried.
    pub(crate) fn withheld(&self, relation: &Relation) -> Result<Option<u32>, Error> {
        let mut signature = vec![relation.schema.clone(), relation.table.clone()];
        signature.extend(relation.columns.iter().map(|column| column.name.clone()));
        if let Some(known) = self.known(relation, &signature) {
            return Ok((!known).then_some(relation.oid));
        }
        self.runtime.block_on(async {
            tokio::select! {
                withheld = self.judge(relation, signature) => withheld,
                // The result is not used then.
                () = self.stop.stopped() => Ok(Some(relation.oid)),
            }
        })
    }

    /// Forgets tables that have no further changes. A check removes what is stored of them.
    pub(crate) fn forget(&self, tables: &[u32]) {
        let mut known = self.bridge.known();
        for oid in tables {
            known.judged.remove(oid);
        }
    }

    /// Whether it is published, if that is known or the name alone decides.
    fn known(&self, relation: &Relation, signature: &[String]) -> Option<bool> {
        let Relation { oid, schema, table, .. } = relation;
        let known = self.bridge.known();
        if known.held.get(oid).is_some_and(|held| held.by_partition.is_some()) {
            return Some(false);
        }
        if let Some(is_published) = known.judged.get(oid).and_then(|of| of.get(signature)) {
            return Some(*is_published);
        }
        let before = known.remembered.get(oid)?;
        let Identity { schema: was_in, table: was, root } = &before.identity;
        let is_same = (was_in, was) == (schema, table) && root.is_none();
        let is_captured = self.bridge.settings.captured.matches(schema, table);
        (is_same && is_captured && before.hiding.is_open()).then_some(true)
    }

    async fn judge(
        &self,
        relation: &Relation,
        signature: Vec<String>,
    ) -> Result<Option<u32>, Error> {
        let now = self.now(relation.oid).await?;
        let before = self.bridge.known().remembered.get(&relation.oid).cloned();
        let judgement = self.decide(relation, before.as_ref(), &now);
        let (is_published, withheld) = match judgement {
            Judgement::Publish => (true, None),
            Judgement::Note(note) => {
                self.note(*note).await;
                (true, None)
            }
            Judgement::Leave { is_behind } => {
                let table = relation.full_name.as_str();
                // The rows of a partition are published as its root's.
                if is_behind {
                    tracing::info!(table, "left out: postgres.tables does not match its name");
                }
                if is_behind {
                    self.bridge.known().asked.remove(&relation.oid);
                }
                if let Some(before) = before.filter(|before| is_behind && !before.is_behind) {
                    self.note(Remembered { is_behind, ..before }).await;
                }
                (false, Some(relation.oid))
            }
            Judgement::Hold { oid, held } => {
                self.hold(oid, held).await;
                (oid != relation.oid, Some(oid))
            }
        };
        let mut known = self.bridge.known();
        let judged = known.judged.entry(relation.oid).or_default();
        if judged.len() >= JUDGED {
            judged.clear();
        }
        judged.insert(signature, is_published);
        drop(known);
        Ok(withheld)
    }

    fn decide(&self, relation: &Relation, before: Option<&Remembered>, now: &Now) -> Judgement {
        let settings = &self.bridge.settings;
        let rules = rules(settings);
        let described: Vec<&str> = relation.columns.iter().map(|of| of.name.as_str()).collect();
        let root = match &now.identity {
            Some(identity) => identity.root.clone(),
            None => before.and_then(|before| before.identity.root.clone()),
        };
        let (schema, table) = (relation.schema.clone(), relation.table.clone());
        let whole = Identity { schema, table, root };
        // The rows of a partition are published as its root's. Rows under its own name are from a
        // time without a root.
        let is_part = settings.via_root && whole.root.is_some();
        let own = if is_part { Identity { root: None, ..whole.clone() } } else { whole.clone() };
        let judge = |identity: &Identity| {
            let before = before?;
            rules.judge(before, identity, &named_in_stream(before, &now.columns, &described))
        };
        if is_part {
            if let (Some(held), Some(root)) = (judge(&whole), &whole.root) {
                return Judgement::Hold { oid: root.oid, held: held.by_partition(relation.oid) };
            }
            let is_open = rules.fate(&own) == Fate::Captured && judge(&own).is_none();
            return match is_open {
                true => Judgement::Publish,
                false => Judgement::Leave { is_behind: false },
            };
        }
        match rules.fate(&own) {
            Fate::Captured => {}
            Fate::Excluded | Fate::Elsewhere => return Judgement::Leave { is_behind: true },
        }
        if let Some(held) = judge(&own) {
            return Judgement::Hold { oid: relation.oid, held };
        }
        match before {
            Some(_) => Judgement::Publish,
            None => {
                let place = self.bridge.known().place.clone();
                let hiding = rules.hiding(&own);
                // It was dropped meanwhile, and nothing of it was hidden; if it is not visible yet,
                // a check finds it.
                if now.identity.is_none() && hiding.is_open() {
                    return Judgement::Publish;
                }
                let columns = now.columns.clone();
                let note = Remembered::new(place, relation.oid, own, hiding, columns);
                Judgement::Note(Box::new(note))
            }
        }
    }

    /// A table's state in the catalog.
    async fn now(&self, oid: u32) -> Result<Now, Error> {
        let mut connected = self.client.lock().await;
        let client = match connected.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => {
                let options = ConnectOptions::of(&self.bridge.settings);
                crate::postgres::client::connect(&self.bridge.conninfo, &options).await?
            }
        };
        let client = connected.insert(client);
        let found = lineage::lineage(client, Some(&[oid])).await?;
        let present = lineage::with_columns(client, found.tables, |_, _| true).await?;
        let now = present
            .into_iter()
            .next()
            .map(|of| Now { identity: Some(of.identity), columns: of.columns });
        Ok(now.unwrap_or_default())
    }

    async fn hold(&self, oid: u32, held: Held) {
        let before = self.bridge.known().remembered.get(&oid).cloned();
        if let Some(before) = before.filter(|before| !before.is_behind) {
            self.note(Remembered { is_behind: true, ..before }).await;
        }
        let mut known = self.bridge.known();
        // Rows that were requested earlier may be read before this is released.
        known.asked.remove(&oid);
        known.held.insert(oid, held);
        drop(known);
        self.bridge.show_held();
    }

    /// Stores something before the stream continues; tries until it is durable.
    async fn note(&self, note: Remembered) {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        let mut repeats = Repeats::new();
        let record = (Remembered::key(&self.bridge.settings.name, note.oid), Some(note.write()));
        loop {
            match self.put(&record).await {
                Ok(()) => break,
                Err(error) => {
                    if let Some(folded) = repeats.again(Instant::now()) {
                        let error = error.told();
                        tracing::warn!(
                            error,
                            folded,
                            "storing the name of a table failed: trying again"
                        );
                    }
                    tokio::time::sleep(backoff.next_wait()).await;
                }
            }
        }
        self.bridge.known().remembered.insert(note.oid, note);
    }

    /// Writes a record with the existing client; after a failure, the next call uses a new one.
    async fn put(&self, record: &(String, Option<Vec<u8>>)) -> Result<(), Error> {
        let mut kept = self.notes.lock().await;
        let notes = match kept.take() {
            Some(notes) => notes,
            None => self.bridge.notes().await?,
        };
        notes.put(std::slice::from_ref(record)).await?;
        *kept = Some(notes);
        Ok(())
    }
}
