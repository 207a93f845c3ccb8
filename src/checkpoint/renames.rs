//! Whether a table that was renamed may still be published; pure.
//!
//! | a table, or a column of it | what happens |
//! |---|---|
//! | is called as before | the present settings apply, whatever they keep back |
//! | was renamed, and as much is kept back | it is published under its present name |
//! | was renamed, and less would be kept back | it is held back, until its name or the settings change |
//! | as above, and `renamed_from` says that this is meant | it is published |
//! | is not the one that had its name before | it is a new table: its rows are read |
//!
//! What was kept back is that of the last settings under which it was captured or excluded; a table
//! that is neither is remembered as it was before. A partition has the settings of the name under
//! which its rows are published.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::remembered::{DatabaseId, Identity, Remembered};
use crate::config::{
    Hiding, Loosened, NamedColumn, SignalTable, TableFilter, TableSettings, exactly, toml_text,
};
use crate::lsn::Lsn;

/// A table as the catalog has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    /// Its OID.
    pub oid: u32,
    /// What it is called.
    pub identity: Identity,
    /// What its columns are called, by number; empty where nobody asked.
    pub columns: BTreeMap<i16, String>,
}

/// The settings of now.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// The tables to capture.
    pub captured: &'a TableFilter,
    /// The settings of tables.
    pub tables: &'a TableSettings,
    /// The table whose rows are signals.
    pub signals: Option<&'a SignalTable>,
    /// Whether changes of partitions are published as their root's.
    pub via_root: bool,
}

/// What is to become of a table by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is published.
    Captured,
    /// `exclude_tables` matches it.
    Excluded,
    /// `tables` does not match it.
    Elsewhere,
}

/// Why a table is held back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The name under which more was kept back.
    pub former: String,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub table: String,
    /// The partition that has it held back.
    pub by_partition: Option<u32>,
    /// What would not be kept back.
    pub lost: Vec<Loosened>,
    /// What to write.
    pub fix: String,
}

impl Held {
    /// Its name of now.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}.{}", self.schema, self.table)
    }

    /// The same for the table as whose rows those of this partition are published.
    #[must_use]
    pub fn by_partition(self, oid: u32) -> Self {
        let fix = format!("detach the partition, or {}", self.fix);
        Self { by_partition: Some(oid), fix, ..self }
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { former, lost, by_partition, .. } = self;
        let name = &self.name();
        let lost: Vec<String> = lost.iter().map(ToString::to_string).collect();
        let lost = lost.join(", ");
        if former == name {
            return write!(f, "a column of {name} was renamed, and this no longer applies: {lost}");
        }
        let now = if by_partition.is_some() { "a partition of" } else { "called" };
        write!(f, "{former} is {now} {name} now, and this no longer applies to it: {lost}")
    }
}

impl Rules<'_> {
    /// What is kept back of a table.
    #[must_use]
    pub fn hiding(&self, identity: &Identity) -> Hiding {
        let (schema, table) = identity.published(self.via_root);
        Hiding::of(self.captured, self.tables, schema, table)
    }

    /// What is to become of a table. A partition is published with its root.
    #[must_use]
    pub fn fate(&self, identity: &Identity) -> Fate {
        let (schema, table) = identity.published(self.via_root);
        let with_root = identity.root.as_ref();
        if self.captured.excludes(schema, table) {
            Fate::Excluded
        } else if self.captured.matches(schema, table)
            || with_root.is_some_and(|root| self.captured.matches(&root.schema, &root.table))
        {
            Fate::Captured
        } else {
            Fate::Elsewhere
        }
    }

    /// What a table was called, its last name among it, as far as settings that keep something back
    /// name it exactly: such a setting names what existed once, and is no typo.
    fn formers(&self, before: &Remembered) -> BTreeSet<(String, String)> {
        let (_, excluded) = self.captured.exact();
        let own = self.tables.exact().map(|(pattern, _)| pattern);
        let patterns: Vec<_> = excluded.into_iter().chain(own).collect();
        let mut names = before.formers.clone();
        names.insert(own_name(&before.identity));
        let (schema, table) = before.identity.published(true);
        names.insert((schema.to_owned(), table.to_owned()));
        names.retain(|(schema, table)| patterns.iter().any(|of| of.matches(schema, table)));
        names
    }

    /// Why a table that is called so now is to be held back, if it is.
    #[must_use]
    pub fn judge(
        &self,
        before: &Remembered,
        identity: &Identity,
        columns: &[NamedColumn<'_>],
    ) -> Option<Held> {
        let is_renamed = *identity != before.identity;
        let is_column_renamed = |of: &NamedColumn<'_>| of.formers.as_slice() != [of.now];
        if before.hiding.is_open() || !(is_renamed || columns.iter().any(is_column_renamed)) {
            return None;
        }
        let hiding = self.hiding(identity);
        let (schema, table) = identity.published(self.via_root);
        let name = format!("{schema}.{table}");
        let former = {
            let (schema, table) = before.identity.published(self.via_root);
            format!("{schema}.{table}")
        };
        let settings = self.tables.of(schema, table);
        let meant = settings.and_then(|of| of.renamed_from.as_deref()).unwrap_or_default();
        let mut lost = before.hiding.loosened(&hiding, columns);
        if is_renamed && meant.contains(&former) {
            return None;
        }
        lost.retain(|lost| match lost {
            Loosened::Column { former, now, .. } => {
                (is_renamed || former != now) && !meant.contains(former)
            }
            // Of a table that is called as before, the settings of now are meant.
            _ => is_renamed,
        });
        let (former_schema, former_table) = before.identity.published(self.via_root);
        let were_signals =
            self.signals.is_some_and(|signals| signals.hides(former_schema, former_table));
        if were_signals {
            // It was excluded by what it is for, not by `exclude_tables`.
            let excluded = lost.iter_mut().filter(|lost| **lost == Loosened::Excluded);
            excluded.for_each(|lost| *lost = Loosened::Signals);
        }
        let first = lost.first()?;
        let line = match first {
            Loosened::Signals => format!("set postgres.signal_table = {}", toml_text(&name)),
            _ => before.hiding.line(&hiding, columns, (schema, table)),
        };
        let meant = match first {
            Loosened::Column { former, .. } if !is_renamed => former,
            _ => &former,
        };
        let own = exactly(schema, table);
        let fix = format!(
            "{line}; or, if the settings of {name} are meant as they are, write in \
             [tables.{}]: renamed_from = [{}]; then restart, or send SIGHUP",
            toml_text(&own),
            toml_text(meant)
        );
        let (schema, table) = (schema.to_owned(), table.to_owned());
        Some(Held { former, schema, table, by_partition: None, lost, fix })
    }
}

fn own_name(identity: &Identity) -> (String, String) {
    (identity.schema.clone(), identity.table.clone())
}

/// The columns of a table as it is now, by the names that they had.
#[must_use]
pub(super) fn named<'a>(
    before: &'a Remembered,
    now: &'a BTreeMap<i16, String>,
) -> Vec<NamedColumn<'a>> {
    let named = |(number, name): (&i16, &'a String)| {
        // One that was added has always been called so.
        let former = before.columns.get(number).unwrap_or(name);
        NamedColumn { formers: vec![former], now: name }
    };
    now.iter().map(named).collect()
}

/// The columns of a table as the stream describes it, which may be long ago: `now` is the catalog's
/// word. A column that neither knows may be any of those that are missing.
#[must_use]
pub fn named_in_stream<'a>(
    before: &'a Remembered,
    now: &'a BTreeMap<i16, String>,
    described: &[&'a str],
) -> Vec<NamedColumn<'a>> {
    let named = |name: &&'a str| {
        let number = now.iter().find(|(_, of)| of == name).map(|(number, _)| number);
        let formers = match number {
            Some(number) => vec![before.columns.get(number).map_or(*name, String::as_str)],
            None if before.columns.values().any(|of| of == name) => vec![*name],
            None => {
                let names = before.columns.values().map(String::as_str);
                let missing = names.filter(|of| !described.contains(of));
                missing.chain([*name]).collect()
            }
        };
        NamedColumn { formers, now: name }
    };
    described.iter().map(named).collect()
}

/// What a look at the catalog has found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Looked {
    /// What is to be remembered from now on.
    pub remember: Vec<Remembered>,
    /// What need not be remembered any more, by OID.
    pub forget: Vec<u32>,
    /// The tables that are held back, by OID.
    pub held: BTreeMap<u32, Held>,
    /// Tables that are published under another name than before: that name, and the new one.
    pub renamed: Vec<(String, String)>,
    /// Names that another table had before.
    pub replaced: BTreeSet<Identity>,
    /// Tables whose rows are to be read again, by OID: changes of them were left out and are not any
    /// more, or another table had their name.
    pub released: BTreeMap<u32, Identity>,
}

/// When a look is taken.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// The end of the WAL.
    pub wal_end: Lsn,
    /// Up to where the stream is published.
    pub through: Lsn,
}

/// Compares what is remembered with what is.
#[must_use]
pub fn look(
    remembered: &BTreeMap<u32, Remembered>,
    present: &[Present],
    rules: &Rules<'_>,
    place: &DatabaseId,
    moment: Moment,
) -> Looked {
    let mut looked = Looked::default();
    let names = remembered.values().filter(|of| of.identity.root.is_none() && !of.hiding.excluded);
    let names: BTreeMap<&Identity, u32> = names.map(|of| (&of.identity, of.oid)).collect();
    let mut behind = BTreeSet::new();
    for table in present {
        let before = remembered.get(&table.oid);
        let fate = rules.fate(&table.identity);
        if fate == Fate::Elsewhere {
            continue;
        }
        let columns = before.map(|before| named(before, &table.columns)).unwrap_or_default();
        let held = before.and_then(|before| rules.judge(before, &table.identity, &columns));
        if let Some(held) = held.filter(|_| fate == Fate::Captured) {
            // What a partition has is published as its root's.
            let root = table.identity.root.as_ref().filter(|_| rules.via_root);
            let (oid, held) = match root {
                Some(root) => (root.oid, held.by_partition(table.oid)),
                None => (table.oid, held),
            };
            behind.insert(oid);
            looked.held.entry(oid).or_insert(held);
            continue;
        }
        let mut now = remember(table, before, rules, place, moment);
        if fate == Fate::Captured {
            let is_new = looked.note_name(table, before, names.get(&table.identity), rules);
            now.is_behind |= is_new;
            if now.is_behind {
                looked.released.insert(table.oid, table.identity.clone());
            }
        }
        looked.remember.push(now);
    }
    looked.released.retain(|oid, _| !looked.held.contains_key(oid));
    hold(&mut looked, remembered, &behind);
    let names = names_of(&looked.remember);
    looked.remember.retain(|now| remembered.get(&now.oid) != Some(now));
    let here: BTreeSet<u32> = present.iter().map(|table| table.oid).collect();
    for gone in remembered.values().filter(|of| !here.contains(&of.oid)) {
        go(&mut looked, gone, rules, &names, moment);
    }
    looked
}

/// What is remembered of a table from here on.
fn remember(
    table: &Present,
    before: Option<&Remembered>,
    rules: &Rules<'_>,
    place: &DatabaseId,
    moment: Moment,
) -> Remembered {
    let mut now = Remembered::new(
        place.clone(),
        table.oid,
        table.identity.clone(),
        rules.hiding(&table.identity),
        table.columns.clone(),
    );
    if let Some(before) = before {
        now.is_behind = before.is_behind;
        remember_dropped(&mut now, before, moment);
        now.formers = rules.formers(before);
        now.formers.remove(&own_name(&now.identity));
    }
    now
}

impl Looked {
    /// Notes that a table has another name than before, or the name of `holder`. Returns whether it
    /// is another table under a known name.
    fn note_name(
        &mut self,
        table: &Present,
        before: Option<&Remembered>,
        holder: Option<&u32>,
        rules: &Rules<'_>,
    ) -> bool {
        let is_own = table.identity.root.is_none();
        let is_other = before.is_none_or(|before| before.identity != table.identity);
        if !is_own || !is_other {
            return false;
        }
        if let Some(before) = before {
            let (schema, name) = before.identity.published(rules.via_root);
            let (new_schema, new_name) = table.identity.published(rules.via_root);
            let names = (format!("{schema}.{name}"), format!("{new_schema}.{new_name}"));
            self.renamed.push(names);
        }
        let is_replaced = holder.is_some_and(|oid| *oid != table.oid);
        if is_replaced {
            self.replaced.insert(table.identity.clone());
        }
        is_replaced
    }
}

/// A column that was dropped may be in the stream still, under another name perhaps: what it was called
/// is remembered until the stream has passed its end.
fn remember_dropped(now: &mut Remembered, before: &Remembered, moment: Moment) {
    if now.columns.is_empty() {
        return;
    }
    for (number, name) in &before.columns {
        if now.columns.contains_key(number) {
            continue;
        }
        let at = before.dropped_columns.get(number).copied().unwrap_or(moment.wal_end);
        if at > moment.through {
            now.columns.insert(*number, name.clone());
            now.dropped_columns.insert(*number, at);
        }
    }
}

/// Notes that changes of tables are left out.
fn hold(looked: &mut Looked, remembered: &BTreeMap<u32, Remembered>, behind: &BTreeSet<u32>) {
    for oid in behind {
        let noted = looked.remember.iter_mut().find(|now| now.oid == *oid);
        match (noted, remembered.get(oid)) {
            (Some(now), _) => now.is_behind = true,
            (None, Some(before)) => {
                looked.remember.push(Remembered { is_behind: true, ..before.clone() });
            }
            (None, None) => {}
        }
    }
}

/// The names of tables that are there, as they are remembered, and what those were called before.
fn names_of(remember: &[Remembered]) -> BTreeSet<(String, String)> {
    let of = |now: &Remembered| {
        let (schema, table) = now.identity.published(true);
        let mut names = now.formers.clone();
        names.extend([own_name(&now.identity), (schema.to_owned(), table.to_owned())]);
        names
    };
    remember.iter().flat_map(of).collect()
}

/// A table is gone. What was kept back of it is remembered until the stream has passed its end, and
/// for as long as the configuration names it and no table that is there is remembered by that name:
/// partitions that are dropped, or tables that are created again, would be remembered for ever.
fn go(
    looked: &mut Looked,
    gone: &Remembered,
    rules: &Rules<'_>,
    names: &BTreeSet<(String, String)>,
    moment: Moment,
) {
    let is_past = gone.gone_at.is_some_and(|at| at <= moment.through);
    let is_named = !rules.formers(gone).is_subset(names);
    if (gone.hiding.is_open() || is_past) && !is_named {
        looked.forget.push(gone.oid);
    } else if gone.gone_at.is_none() {
        let gone_at = Some(moment.wal_end);
        looked.remember.push(Remembered { gone_at, ..gone.clone() });
    }
}

#[cfg(test)]
#[path = "renames_tests.rs"]
mod tests;
