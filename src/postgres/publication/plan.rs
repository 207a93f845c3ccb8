//! What must be done to the publication, as SQL; pure.
//!
//! A table whose columns or rows change is taken out and put in again in the same transaction, so
//! that no change falls between the two. The server applies a publication as it stood when a change
//! was made: what is altered now holds for what is written from now on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use postgres_protocol::escape::escape_identifier;

use super::{Candidate, Part, Publication, Published, TableName};
use crate::config::{Operation, TableFilter};

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The tables.
    pub captured: &'a TableFilter,
    /// The operations to leave out.
    pub skipped: &'a [Operation],
    /// Whether changes of partitions are published as their root's.
    pub via_root: bool,
    /// The tables of which not everything is published.
    pub published: &'a BTreeMap<TableName, Published>,
    /// The server's version, as `server_version_num`.
    pub server_version: u32,
}

impl Wanted<'_> {
    /// Whether the server needs to know old rows: it then refuses to update or delete rows of
    /// tables without an identity.
    #[must_use]
    pub fn needs_identity(&self) -> bool {
        [Operation::Update, Operation::Delete].iter().any(|needy| !self.skipped.contains(needy))
    }

    fn operations(&self) -> Vec<Operation> {
        Operation::ALL.into_iter().filter(|operation| !self.skipped.contains(operation)).collect()
    }
}

/// A table with what is to be published of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableChange {
    /// The table.
    pub table: TableName,
    /// What of it is to be published.
    pub published: Published,
}

impl TableChange {
    /// With ONLY, or the tables that inherit from it would be published with it.
    fn sql(&self) -> String {
        let mut sql = only(&self.table);
        if let Some(columns) = &self.published.columns {
            let columns: Vec<String> =
                columns.iter().map(|column| escape_identifier(column)).collect();
            sql += &format!(" ({})", columns.join(", "));
        }
        if let Some(condition) = &self.published.condition {
            sql += &format!(" WHERE ({condition})");
        }
        sql
    }
}

fn only(table: &TableName) -> String {
    format!("ONLY {}", table.sql())
}

impl fmt::Display for TableChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.table)?;
        if let Some(columns) = &self.published.columns {
            write!(f, " ({})", columns.join(", "))?;
        }
        match &self.published.condition {
            Some(condition) => write!(f, " where {condition}"),
            None => Ok(()),
        }
    }
}

/// What must be done so that the right tables are published.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PublicationChange {
    /// There is none yet.
    pub create: bool,
    /// The operations to publish from now on, where they change.
    pub operations: Option<Vec<Operation>>,
    /// Whether to publish changes of partitions as their root's from now on, where that changes.
    pub via_root: Option<bool>,
    /// Tables to put in.
    pub add: Vec<TableChange>,
    /// Tables whose columns or rows change.
    pub alter: Vec<TableChange>,
    /// Tables to take out.
    pub remove: Vec<TableName>,
    /// Tables that match and are left out, because publishing them would break UPDATE and DELETE.
    pub without_identity: Vec<TableName>,
    /// Tables to put in that the role does not own, with their owners.
    pub not_owned: Vec<(TableName, String)>,
}

impl PublicationChange {
    /// Whether the publication is as it should be.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.create
            && self.operations.is_none()
            && self.via_root.is_none()
            && self.add.is_empty()
            && self.alter.is_empty()
            && self.remove.is_empty()
    }

    /// The statements that carry it out.
    #[must_use]
    pub fn sql(&self, name: &str) -> Vec<String> {
        let publication = escape_identifier(name);
        let publish = |operations: &Vec<Operation>| {
            let words: Vec<&str> = operations.iter().map(|operation| operation.word()).collect();
            format!("publish = '{}'", words.join(", "))
        };
        let root = |via_root: bool| format!("publish_via_partition_root = {via_root}");
        let root = self.via_root.map(root);
        let options: Vec<String> =
            root.into_iter().chain(self.operations.as_ref().map(publish)).collect();
        let options = options.join(", ");
        let added: Vec<String> = self.add.iter().chain(&self.alter).map(TableChange::sql).collect();
        if self.create {
            let tables = match added.as_slice() {
                [] => String::new(),
                tables => format!(" FOR TABLE {}", tables.join(", ")),
            };
            return vec![format!("CREATE PUBLICATION {publication}{tables} WITH ({options})")];
        }
        let altered = self.alter.iter().map(|change| &change.table);
        let removed: Vec<String> = self.remove.iter().chain(altered).map(only).collect();
        let tables = |what: &str, tables: &[String]| {
            let tables = (!tables.is_empty()).then(|| tables.join(", "))?;
            Some(format!("ALTER PUBLICATION {publication} {what} TABLE {tables}"))
        };
        let set = (!options.is_empty())
            .then(|| format!("ALTER PUBLICATION {publication} SET ({options})"));
        let changes = [set, tables("DROP", &removed), tables("ADD", &added)];
        changes.into_iter().flatten().collect()
    }
}

/// What must change so that exactly what is wanted is published.
#[must_use]
pub fn plan(
    candidates: &[Candidate],
    wanted: &Wanted<'_>,
    present: Option<&Publication>,
) -> PublicationChange {
    let mut change = PublicationChange { create: present.is_none(), ..Default::default() };
    if present.is_some_and(|publication| !publication.is_by_table) {
        return change;
    }
    let operations = wanted.operations();
    if present.is_none_or(|publication| publication.operations != operations) {
        change.operations = Some(operations);
    }
    if present.is_none_or(|publication| publication.via_root != wanted.via_root) {
        change.via_root = Some(wanted.via_root);
    }
    let mut kept = BTreeSet::new();
    for candidate in candidates {
        let TableName { schema, name } = &candidate.table;
        if !wanted.captured.matches(schema, name) {
            continue;
        }
        let breaks = wanted.needs_identity()
            && candidate.refused(Part::default(), wanted.server_version).next().is_some();
        if breaks && !wanted.captured.names_exactly(schema, name) {
            change.without_identity.push(candidate.table.clone());
            continue;
        }
        kept.insert(&candidate.table);
        let published = wanted.published.get(&candidate.table).cloned().unwrap_or_default();
        let table = TableChange { table: candidate.table.clone(), published };
        match present.and_then(|publication| publication.tables.get(&candidate.table)) {
            Some(as_it_is) if *as_it_is == table.published => continue,
            Some(_) => change.alter.push(table),
            None => change.add.push(table),
        }
        if !candidate.is_owned {
            change.not_owned.push((candidate.table.clone(), candidate.owner.clone()));
        }
    }
    if let Some(publication) = present {
        let tables = publication.tables.keys();
        change.remove = tables.filter(|table| !kept.contains(table)).cloned().collect();
    }
    change
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::publication::Leaf;

    const VERSION: u32 = 180_000;
    const SKIPPED: &[Operation] = &[Operation::Truncate];

    fn name(text: &str) -> TableName {
        let (schema, name) = text.split_once('.').unwrap();
        TableName { schema: schema.to_owned(), name: name.to_owned() }
    }

    fn candidate(text: &str) -> Candidate {
        let table = name(text);
        let index = Some(vec!["id".to_owned()]);
        let leaf = Leaf { table: table.clone(), has_rows: true, index, ..Leaf::default() };
        Candidate { oid: 1, table, is_owned: true, owner: "app".to_owned(), leaves: vec![leaf] }
    }

    fn keyless(text: &str) -> Candidate {
        let mut keyless = candidate(text);
        keyless.leaves[0].index = None;
        keyless
    }

    fn filter(include: &[&str]) -> TableFilter {
        let include: Vec<String> = include.iter().map(|&text| text.to_owned()).collect();
        TableFilter::parse(&include, &[]).unwrap()
    }

    fn publication(tables: &[&str]) -> Publication {
        Publication {
            is_by_table: true,
            is_owned: true,
            owner: "app".to_owned(),
            operations: vec![Operation::Insert, Operation::Update, Operation::Delete],
            via_root: true,
            tables: tables.iter().map(|text| (name(text), Published::default())).collect(),
        }
    }

    fn part(columns: &[&str], condition: Option<&str>) -> Published {
        let columns = columns.iter().map(|&column| column.to_owned()).collect();
        Published { columns: Some(columns), condition: condition.map(str::to_owned) }
    }

    fn planned(
        candidates: &[Candidate],
        include: &[&str],
        published: &[(&str, Published)],
        present: Option<&Publication>,
    ) -> PublicationChange {
        let published = published.iter().map(|(table, part)| (name(table), part.clone()));
        let wanted = Wanted {
            captured: &filter(include),
            skipped: SKIPPED,
            via_root: true,
            published: &published.collect(),
            server_version: VERSION,
        };
        plan(candidates, &wanted, present)
    }

    #[test]
    fn a_first_publication_names_the_matching_tables() {
        let all = [candidate("public.rides"), candidate("audit.log")];
        let change = planned(&all, &["public.*"], &[], None);
        assert_eq!(
            change.sql("p"),
            [
                r#"CREATE PUBLICATION "p" FOR TABLE ONLY "public"."rides" WITH (publish_via_partition_root = true, publish = 'insert, update, delete')"#
            ]
        );
    }

    #[test]
    fn a_changed_set_is_dropped_and_added_by_name() {
        let all = [candidate("public.rides"), candidate("public.O\"Hare")];
        let present = publication(&["public.rides", "public.zones"]);
        let change = planned(&all, &["*.*"], &[], Some(&present));
        assert_eq!(
            change.sql("p"),
            [
                r#"ALTER PUBLICATION "p" DROP TABLE ONLY "public"."zones""#,
                r#"ALTER PUBLICATION "p" ADD TABLE ONLY "public"."O""Hare""#
            ]
        );
    }

    #[test]
    fn what_is_right_already_is_left_alone() {
        let all = [candidate("public.rides")];
        let change = planned(&all, &["*.*"], &[], Some(&publication(&["public.rides"])));
        assert!(change.is_empty() && change.sql("p").is_empty());
        let for_all = Publication { is_by_table: false, ..publication(&[]) };
        assert!(planned(&all, &["*.*"], &[], Some(&for_all)).is_empty());
    }

    #[test]
    fn a_table_whose_updates_would_be_refused_is_left_out_unless_named_exactly() {
        let all = [keyless("public.log")];
        let by_glob = planned(&all, &["public.*"], &[], None);
        assert_eq!((by_glob.add.len(), by_glob.without_identity.len()), (0, 1));
        let by_name = planned(&all, &["public.log"], &[], None);
        assert_eq!((by_name.add.len(), by_name.without_identity.len()), (1, 0));
        // Postgres refuses nothing where it need not tell the old row.
        let wanted = Wanted {
            captured: &filter(&["public.*"]),
            skipped: &[Operation::Update, Operation::Delete],
            via_root: true,
            published: &BTreeMap::new(),
            server_version: VERSION,
        };
        let change = plan(&all, &wanted, None);
        assert_eq!((change.add.len(), change.without_identity.len()), (1, 0));
        assert!(change.sql("p")[0].contains("publish = 'insert, truncate'"));
    }

    #[test]
    fn columns_and_rows_are_published_as_asked_and_changed_in_one_go() {
        let all = [candidate("public.rides"), candidate("public.zones")];
        let wanted = [("public.rides", part(&["id", "Fare"], Some("(id > 5)")))];
        let create = planned(&all, &["*.*"], &wanted, None);
        assert!(create.sql("p")[0].contains(
            r#"FOR TABLE ONLY "public"."rides" ("id", "Fare") WHERE ((id > 5)), ONLY "public"."zones" WITH"#
        ));

        let mut present = publication(&["public.rides", "public.zones"]);
        let change = planned(&all, &["*.*"], &wanted, Some(&present));
        assert_eq!(change.alter[0].to_string(), "public.rides (id, Fare) where (id > 5)");
        assert_eq!(
            change.sql("p"),
            [
                r#"ALTER PUBLICATION "p" DROP TABLE ONLY "public"."rides""#,
                r#"ALTER PUBLICATION "p" ADD TABLE ONLY "public"."rides" ("id", "Fare") WHERE ((id > 5))"#
            ]
        );
        present.tables.insert(name("public.rides"), wanted[0].1.clone());
        assert!(planned(&all, &["*.*"], &wanted, Some(&present)).is_empty());
        // Taken out of the configuration, a filter is taken out of the publication.
        let back = planned(&all, &["*.*"], &[], Some(&present)).sql("p");
        assert_eq!(back[1], r#"ALTER PUBLICATION "p" ADD TABLE ONLY "public"."rides""#);
    }

    #[test]
    fn the_operations_are_set_where_they_differ() {
        let all = [candidate("public.rides")];
        let mut present = publication(&["public.rides"]);
        present.operations = Operation::ALL.to_vec();
        let change = planned(&all, &["*.*"], &[], Some(&present));
        assert_eq!(
            change.sql("p"),
            [r#"ALTER PUBLICATION "p" SET (publish = 'insert, update, delete')"#]
        );
        present.via_root = false;
        let change = planned(&all, &["*.*"], &[], Some(&present));
        assert_eq!(
            change.sql("p"),
            [
                r#"ALTER PUBLICATION "p" SET (publish_via_partition_root = true, publish = 'insert, update, delete')"#
            ]
        );
    }

    /// A publication that is changed as planned, by a model of what the statements do.
    fn carried_out(present: Option<Publication>, change: &PublicationChange) -> Publication {
        let mut publication = present.unwrap_or_else(|| publication(&[]));
        if let Some(operations) = &change.operations {
            publication.operations.clone_from(operations);
        }
        publication.via_root = change.via_root.unwrap_or(publication.via_root);
        for table in change.remove.iter().chain(change.alter.iter().map(|change| &change.table)) {
            assert!(publication.tables.remove(table).is_some(), "{table} is in it");
        }
        for TableChange { table, published } in change.add.iter().chain(&change.alter) {
            assert_eq!(publication.tables.insert(table.clone(), published.clone()), None);
        }
        publication
    }

    use proptest::prelude::*;

    fn any_part() -> impl Strategy<Value = Published> {
        let columns =
            proptest::option::of(proptest::sample::subsequence(vec!["a", "b", "c"], 1..3));
        (columns, proptest::option::of("[xyz]")).prop_map(|(columns, condition)| Published {
            columns: columns.map(|list| list.into_iter().map(str::to_owned).collect()),
            condition,
        })
    }

    fn any_tables() -> impl Strategy<Value = BTreeMap<TableName, Published>> {
        let table = proptest::sample::select(vec!["public.a", "public.b", "audit.a", "audit.b"]);
        proptest::collection::btree_map(table.prop_map(name), any_part(), 0..4)
    }

    fn any_operations() -> impl Strategy<Value = Vec<Operation>> {
        proptest::sample::subsequence(Operation::ALL.to_vec(), 0..4)
    }

    proptest! {
        #[test]
        fn one_change_leads_from_any_publication_to_the_wanted_one(
            before in proptest::option::of((any_tables(), any_operations(), any::<bool>())),
            existing in proptest::sample::subsequence(
                vec!["public.a", "public.b", "audit.a", "audit.b"], 0..=4),
            published in any_tables(),
            skipped in any_operations(),
            via_root: bool,
        ) {
            let all: Vec<Candidate> = existing.iter().map(|text| candidate(text)).collect();
            let present = before.map(|(tables, operations, via_root)| Publication {
                tables, operations, via_root, ..publication(&[])
            });
            let captured = filter(&["public.*"]);
            let wanted =
                Wanted {
                    captured: &captured, skipped: &skipped, via_root, published: &published,
                    server_version: VERSION,
                };
            let change = plan(&all, &wanted, present.as_ref());
            let after = carried_out(present, &change);
            prop_assert_eq!(&after.operations, &wanted.operations());
            prop_assert_eq!(after.via_root, via_root);
            let expected: BTreeMap<TableName, Published> = all.iter()
                .filter(|candidate| candidate.table.schema == "public")
                .map(|candidate| candidate.table.clone())
                .map(|table| {
                    let part = published.get(&table).cloned().unwrap_or_default();
                    (table, part)
                })
                .collect();
            prop_assert_eq!(&after.tables, &expected);
            prop_assert!(plan(&all, &wanted, Some(&after)).is_empty());
        }
    }
}
