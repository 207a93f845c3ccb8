//! Which table has which topic: nobody gets one that another has.
//!
//! Two tables with one topic would have one key space: a row of one would replace a row of the
//! other in a compacted topic. So a table claims its topic, and what was claimed first stays. Tables
//! are distinguished by OID; names are compared as schema and name, never joined: `"a.b"."c"` is not
//! `"a"."b.c"`.
//!
//! | the topic is | outcome |
//! |---|---|
//! | nobody's | claimed |
//! | that of a table whose schema and name are the same | claimed: that one was dropped or renamed |
//! | that of another, and the configuration sets it for one of the two by name | shared, as configured |
//! | that of another | refused |
//! | a topic of rowcast's own | refused |
//! | not there, and another's differs from it only in `.` and `_` | refused: the brokers would |
//!
//! Not here: what becomes of a table that is refused.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use super::names::metric_name;
use crate::config::TablePattern;

/// A table, as topics know it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Named {
    /// Its OID, or that of the partition.
    pub oid: u32,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |part: &str| {
            !part.is_empty() && part.chars().all(|c| c.is_alphanumeric() || "_-".contains(c))
        };
        // The quotes say where a name with a dot begins, and show a space at its end.
        if plain(&self.schema) && plain(&self.name) {
            write!(f, "{}.{}", self.schema, self.name)
        } else {
            write!(f, "{:?}.{:?}", self.schema, self.name)
        }
    }
}

impl Named {
    /// The key of its section in the configuration, as TOML writes it.
    #[must_use]
    pub fn section(&self) -> String {
        toml_edit::Key::new(TablePattern::exact(&self.schema, &self.name)).to_string()
    }
}

/// Why a table does not get its topic.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Conflict {
    /// Another table has it.
    Taken(Named),
    /// The brokers refuse it next to the topic of another table, or of rowcast itself.
    Metric {
        /// The table, if it is one's.
        table: Option<Named>,
        /// The other topic.
        topic: Arc<str>,
    },
    /// It is a topic of rowcast's own, named by what is in it.
    Own(&'static str),
    /// Kafka does not take the name.
    Name(&'static str),
}

/// Topics that the brokers have.
#[derive(Debug, Clone, Default)]
pub struct Existing {
    topics: HashSet<Arc<str>>,
    by_metric: HashMap<String, Arc<str>>,
}

impl<T: AsRef<str>> FromIterator<T> for Existing {
    fn from_iter<I: IntoIterator<Item = T>>(names: I) -> Self {
        let mut existing = Self::default();
        for name in names {
            let name: Arc<str> = name.as_ref().into();
            existing.by_metric.insert(metric_name(&name), Arc::clone(&name));
            existing.topics.insert(name);
        }
        existing
    }
}

impl Existing {
    /// Whether the brokers have the topic.
    #[must_use]
    pub fn has(&self, topic: &str) -> bool {
        self.topics.contains(topic)
    }
}

/// The claims of the tables of one pipeline.
#[derive(Debug, Clone, Default)]
pub(super) struct Claims {
    existing: Arc<Existing>,
    own: HashMap<Arc<str>, &'static str>,
    holders: HashMap<Arc<str>, Vec<Holder>>,
    /// The topics that are claimed, or rowcast's own, by the name of their metrics.
    by_metric: HashMap<String, Vec<Arc<str>>>,
    by_oid: HashMap<u32, Arc<str>>,
}

#[derive(Debug, Clone)]
struct Holder {
    table: Named,
    /// The configuration names the topic for it.
    is_given: bool,
}

impl Claims {
    /// Nothing is claimed yet, but for rowcast's own topics.
    pub(super) fn new(own: impl IntoIterator<Item = (Arc<str>, &'static str)>) -> Self {
        let own: HashMap<Arc<str>, &'static str> = own.into_iter().collect();
        let mut claims = Self::default();
        for topic in own.keys() {
            claims.by_metric.entry(metric_name(topic)).or_default().push(Arc::clone(topic));
        }
        claims.own = own;
        claims
    }

    pub(super) fn set_existing(&mut self, existing: Arc<Existing>) {
        self.existing = existing;
    }

    pub(super) fn is_own(&self, topic: &str) -> bool {
        self.own.contains_key(topic)
    }

    /// Whether a table could have the topic.
    pub(super) fn is_free(&self, topic: &Arc<str>) -> bool {
        !self.own.contains_key(topic)
            && !self.holders.contains_key(topic)
            && self.metric_conflict(topic).is_ok()
    }

    /// The topic that a table holds.
    pub(super) fn held_by(&self, oid: u32) -> Option<&Arc<str>> {
        self.by_oid.get(&oid)
    }

    /// Another table that has the same topic.
    pub(super) fn shares_with(&self, oid: u32) -> Option<&Named> {
        let holders = self.holders.get(self.by_oid.get(&oid)?)?;
        holders.iter().map(|holder| &holder.table).find(|table| table.oid != oid)
    }

    /// A table claims a topic; it releases its former one, whatever the result.
    pub(super) fn claim(
        &mut self,
        table: &Named,
        topic: &Arc<str>,
        is_given: bool,
    ) -> Result<(), Conflict> {
        self.release(table.oid);
        if let Some(what) = self.own.get(topic) {
            return Err(Conflict::Own(what));
        }
        let name = |of: &Named| (of.schema.clone(), of.name.clone());
        let before = self.holders.get(topic).into_iter().flatten();
        let gone: Vec<u32> = before
            .filter(|holder| name(&holder.table) == name(table))
            .map(|holder| holder.table.oid)
            .collect();
        for oid in gone {
            self.release(oid);
        }
        let holders = self.holders.get(topic).map(Vec::as_slice).unwrap_or_default();
        if let Some(other) = holders.iter().find(|holder| !is_given && !holder.is_given) {
            return Err(Conflict::Taken(other.table.clone()));
        }
        self.metric_conflict(topic)?;
        self.enter(table, topic, is_given);
        Ok(())
    }

    /// The same for a table of which it is known that nobody else has the topic any more: who had
    /// it, or one that is refused next to it, has been dropped or renamed.
    /// Returns those.
    pub(super) fn take_over(
        &mut self,
        table: &Named,
        topic: &Arc<str>,
        is_given: bool,
    ) -> Vec<u32> {
        self.release(table.oid);
        let alike = self.by_metric.get(&metric_name(topic)).into_iter().flatten();
        let holders = alike.filter_map(|alike| self.holders.get(alike)).flatten();
        let gone = holders.filter(|holder| !is_given && !holder.is_given);
        let gone: Vec<u32> = gone.map(|holder| holder.table.oid).collect();
        for &oid in &gone {
            self.release(oid);
        }
        self.enter(table, topic, is_given);
        gone
    }

    fn enter(&mut self, table: &Named, topic: &Arc<str>, is_given: bool) {
        let holder = Holder { table: table.clone(), is_given };
        self.holders.entry(Arc::clone(topic)).or_default().push(holder);
        self.by_oid.insert(table.oid, Arc::clone(topic));
        let alike = self.by_metric.entry(metric_name(topic)).or_default();
        if !alike.contains(topic) {
            alike.push(Arc::clone(topic));
        }
    }

    /// A topic that is there is used, whatever it is next to; one that is not there can't be created
    /// next to one that has its metrics' name.
    fn metric_conflict(&self, topic: &Arc<str>) -> Result<(), Conflict> {
        if self.existing.has(topic) {
            return Ok(());
        }
        let metric = metric_name(topic);
        let mut alike = self.by_metric.get(&metric).into_iter().flatten();
        if let Some(other) = alike.find(|other| *other != topic) {
            let holder = self.holders.get(other).and_then(|holders| holders.first());
            let table = holder.map(|holder| holder.table.clone());
            return Err(Conflict::Metric { table, topic: Arc::clone(other) });
        }
        match self.existing.by_metric.get(&metric) {
            Some(other) if other != topic => {
                Err(Conflict::Metric { table: None, topic: Arc::clone(other) })
            }
            _ => Ok(()),
        }
    }

    /// A table is gone. Returns its topic, if that is no other table's.
    pub(super) fn leave(&mut self, oid: u32) -> Option<Arc<str>> {
        let topic = self.by_oid.get(&oid).cloned()?;
        self.release(oid);
        (!self.holders.contains_key(&topic)).then_some(topic)
    }

    fn release(&mut self, oid: u32) {
        let Some(topic) = self.by_oid.remove(&oid) else { return };
        let Some(holders) = self.holders.get_mut(&topic) else { return };
        holders.retain(|holder| holder.table.oid != oid);
        if !holders.is_empty() {
            return;
        }
        self.holders.remove(&topic);
        let metric = metric_name(&topic);
        if let Some(alike) = self.by_metric.get_mut(&metric) {
            alike.retain(|other| *other != topic);
            if alike.is_empty() {
                self.by_metric.remove(&metric);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(oid: u32, schema: &str, name: &str) -> Named {
        Named { oid, schema: schema.to_owned(), name: name.to_owned() }
    }

    fn topic(name: &str) -> Arc<str> {
        name.into()
    }

    fn claims() -> Claims {
        Claims::new([(topic("nyc.message"), "logical messages")])
    }

    fn claim(claims: &mut Claims, table: &Named, name: &str) -> Result<(), Conflict> {
        claims.claim(table, &topic(name), false)
    }

    #[test]
    fn what_was_claimed_first_stays_and_names_are_not_joined() {
        let mut claims = claims();
        let (a, b) = (table(1, "a.b", "c"), table(2, "a", "b.c"));
        claim(&mut claims, &a, "nyc.a.b.c").unwrap();
        claim(&mut claims, &a, "nyc.a.b.c").unwrap();
        assert_eq!(claim(&mut claims, &b, "nyc.a.b.c"), Err(Conflict::Taken(a.clone())));
        // Once it has another name, the topic is free.
        claim(&mut claims, &table(1, "a.b", "d"), "nyc.a.b.d").unwrap();
        claim(&mut claims, &b, "nyc.a.b.c").unwrap();
        assert_eq!(claims.held_by(2), Some(&topic("nyc.a.b.c")));
    }

    #[test]
    fn a_table_that_came_in_the_place_of_another_has_its_topic() {
        let mut claims = claims();
        claim(&mut claims, &table(1, "public", "rides"), "nyc.public.rides").unwrap();
        // RENAME TO rides_old; RENAME TO rides: only the second is heard of.
        claim(&mut claims, &table(2, "public", "rides"), "nyc.public.rides").unwrap();
        assert_eq!(claims.held_by(1), None);
        claim(&mut claims, &table(1, "public", "rides_old"), "nyc.public.rides_old").unwrap();
    }

    #[test]
    fn a_topic_that_is_given_by_name_is_shared_and_said_to_be() {
        let mut claims = claims();
        let (a, b, c) = (table(1, "a", "t"), table(2, "b", "t"), table(3, "c", "t"));
        claims.claim(&a, &topic("all"), true).unwrap();
        assert_eq!(claims.shares_with(1), None);
        claims.claim(&b, &topic("all"), true).unwrap();
        claims.claim(&c, &topic("all"), false).unwrap();
        assert_eq!((claims.shares_with(1), claims.shares_with(3)), (Some(&b), Some(&a)));
        // Two that were not given it do not share it.
        let d = table(4, "d", "t");
        assert_eq!(claims.claim(&d, &topic("all"), false), Err(Conflict::Taken(c)));
    }

    #[test]
    fn topics_that_differ_in_dots_and_underscores_alone_are_refused_unless_they_are_there() {
        let mut claims = claims();
        let (a, b) = (table(1, "a", "b_c"), table(2, "a_b", "c"));
        claim(&mut claims, &a, "nyc.a.b_c").unwrap();
        let conflict = Conflict::Metric { table: Some(a), topic: topic("nyc.a.b_c") };
        assert_eq!(claim(&mut claims, &b, "nyc.a_b.c"), Err(conflict.clone()));
        // By name or not.
        assert_eq!(claims.claim(&b, &topic("nyc.a_b.c"), true), Err(conflict));
        let own = Conflict::Metric { table: None, topic: topic("nyc.message") };
        assert_eq!(claim(&mut claims, &b, "nyc_message"), Err(own));
        // The brokers have one that no table has.
        claims.set_existing(Arc::new(["nyc.x_y", "nyc.a_b.c"].into_iter().collect()));
        let stranger = Conflict::Metric { table: None, topic: topic("nyc.x_y") };
        assert_eq!(claim(&mut claims, &table(3, "x", "y"), "nyc.x.y"), Err(stranger));
        claim(&mut claims, &b, "nyc.a_b.c").unwrap();
    }

    #[test]
    fn a_topic_of_rowcasts_own_is_no_tables() {
        let mut claims = claims();
        let conflict = Err(Conflict::Own("logical messages"));
        assert_eq!(claim(&mut claims, &table(1, "a", "message"), "nyc.message"), conflict.clone());
        let given = claims.claim(&table(1, "a", "message"), &topic("nyc.message"), true);
        assert_eq!(given, conflict);
    }

    #[test]
    fn a_topic_is_taken_over_from_tables_that_are_gone() {
        let mut claims = claims();
        claim(&mut claims, &table(1, "public", "x_y"), "nyc.public.x_y").unwrap();
        let new = table(2, "public", "x y");
        assert_eq!(claims.take_over(&new, &topic("nyc.public.x_y"), false), [1]);
        assert_eq!(claims.held_by(1), None);
        assert_eq!(claims.held_by(2), Some(&topic("nyc.public.x_y")));
    }

    #[test]
    fn a_name_is_shown_so_that_its_parts_can_be_told() {
        assert_eq!(table(1, "public", "rides").to_string(), "public.rides");
        assert_eq!(table(1, "public", "данные").to_string(), "public.данные");
        assert_eq!(table(1, "a.b", "c").to_string(), r#""a.b"."c""#);
        assert_eq!(table(1, "public", "x y").to_string(), r#""public"."x y""#);
        assert_eq!(table(1, "public", "x y").section(), r#""public.x y""#);
        assert_eq!(table(1, "a.b", "c*").section(), r"'a\.b.c\*'");
    }
}
