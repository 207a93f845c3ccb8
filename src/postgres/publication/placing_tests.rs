//! What is planned, against a model of what the statements do.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::config::{SignalTable, TableFilter};
use crate::postgres::publication::{Leaf, PublicationChange, Published};

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
        generated: false,
        conditions: BTreeMap::new(),
        covers: None,
        unread: BTreeSet::new(),
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
    let (captured, published) = (filter(include), published.collect());
    let wanted = Wanted { published: &published, ..wanted_of(&captured) };
    let wanted = Wanted { inserts: Inserts::Untouched, ..wanted };
    plan(candidates, &wanted, Present { main: present, inserts: None }).main
}

fn wanted_of(captured: &TableFilter) -> Wanted<'_> {
    static NONE: BTreeMap<TableName, Published> = BTreeMap::new();
    static NO_CONDITIONS: BTreeMap<TableName, Vec<String>> = BTreeMap::new();
    Wanted {
        names: NAMES,
        captured,
        skipped: SKIPPED,
        via_root: true,
        published: &NONE,
        conditions: &NO_CONDITIONS,
        server_version: VERSION,
        inserts: Inserts::Used,
        signals: None,
    }
}

const NAMES: Names<'_> = Names { main: "p", inserts: "p_inserts" };

/// The publication for inserts.
fn inserts(tables: &[&str]) -> Publication {
    Publication { operations: vec![Operation::Insert], ..publication(tables) }
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
fn of_a_table_whose_updates_would_be_refused_only_inserts_are_published() {
    let all = [keyless("public.log"), candidate("public.rides")];
    for include in ["public.*", "public.log"] {
        let captured = filter(&[include, "public.rides"]);
        let wanted = wanted_of(&captured);
        let create = plan(&all, &wanted, Present::default()).sql(NAMES);
        assert!(
            create[0].starts_with("CREATE PUBLICATION \"p\" FOR TABLE ONLY \"public\".\"rides\" ")
        );
        assert_eq!(
            create[1],
            r#"CREATE PUBLICATION "p_inserts" FOR TABLE ONLY "public"."log" WITH (publish_via_partition_root = true, publish = 'insert')"#
        );
        // Where that can't be, it is left out, however it is named.
        let prepared = Wanted { inserts: Inserts::Prepared, ..wanted };
        let planned = plan(&all, &prepared, Present::default());
        assert_eq!((planned.left_out.len(), planned.insert_only.len()), (1, 0));
        assert!(planned.inserts.create && planned.inserts.add.is_empty());
        let untouched = Wanted { inserts: Inserts::Untouched, ..wanted };
        let planned = plan(&all, &untouched, Present::default());
        assert_eq!((planned.left_out.len(), planned.inserts.is_empty()), (1, true));
    }
    // Postgres refuses nothing where it need not know the old row.
    let captured = filter(&["public.*"]);
    let skipped = &[Operation::Update, Operation::Delete];
    let planned = plan(&all, &Wanted { skipped, ..wanted_of(&captured) }, Present::default());
    assert_eq!((planned.main.add.len(), planned.insert_only.len()), (2, 0));
    assert!(planned.sql(NAMES)[0].contains("publish = 'insert, truncate'"));
}

#[test]
fn a_table_goes_from_one_publication_to_the_other_with_its_identity() {
    let captured = filter(&["*.*"]);
    let (main, none) = (publication(&["public.log"]), inserts(&[]));
    let present = Present { main: Some(&main), inserts: Some(&none) };
    let lost = plan(&[keyless("public.log")], &wanted_of(&captured), present);
    let moved = [
        r#"ALTER PUBLICATION "p" DROP TABLE ONLY "public"."log""#,
        r#"ALTER PUBLICATION "p_inserts" ADD TABLE ONLY "public"."log""#,
    ];
    assert_eq!(lost.sql(NAMES), moved);
    assert_eq!(lost.urgent().into_iter().collect::<Vec<_>>(), [name("public.log")]);
    assert_eq!(lost.harmed.len(), 1);
    assert!(lost.gains().is_empty(), "its rows are known");
    assert!(lost.script(NAMES).starts_with("BEGIN; ALTER PUBLICATION \"p\" DROP"));

    let (none, held) = (publication(&[]), inserts(&["public.log"]));
    let present = Present { main: Some(&none), inserts: Some(&held) };
    let mut found = plan(&[candidate("public.log")], &wanted_of(&captured), present);
    assert!(found.urgent().is_empty());
    let back = [
        r#"ALTER PUBLICATION "p" ADD TABLE ONLY "public"."log""#,
        r#"ALTER PUBLICATION "p_inserts" DROP TABLE ONLY "public"."log""#,
    ];
    assert_eq!(found.sql(NAMES), back);
    // Until its rows are to be read, it stays where it is.
    assert_eq!(found.put_off_gains(|_| true), [name("public.log")]);
    assert!(found.is_empty());
    // What only its owner may do waits for the owner.
    let foreign = Candidate { is_owned: false, ..candidate("public.log") };
    let kept = plan(&[foreign], &wanted_of(&captured), present);
    assert!(kept.is_empty());
    let script = format!("as a DBA: BEGIN; {}; COMMIT;", back.join("; "));
    assert!(kept.insert_only[0].fix.starts_with(&script), "{}", kept.insert_only[0].fix);
}

#[test]
fn one_partition_without_an_identity_makes_its_tree_insert_only_and_is_named() {
    let mut tree = candidate("public.days");
    let of = |table: &str, index: Option<Vec<String>>| Leaf {
        table: name(table),
        has_rows: true,
        index,
        ..Leaf::default()
    };
    let key = Some(vec!["id".to_owned()]);
    tree.leaves = vec![
        Leaf { is_full: true, ..Leaf::default() },
        of("public.days_1", key),
        of("parts.days_2", None),
    ];
    let captured = filter(&["*.*"]);
    let planned = plan(&[tree], &wanted_of(&captured), Present::default());
    let limited = &planned.insert_only[0];
    assert_eq!(
        limited.to_string(),
        "public.days: partition parts.days_2: it has no replica identity"
    );
    assert_eq!(limited.fix, "ALTER TABLE \"parts\".\"days_2\" REPLICA IDENTITY FULL;");
}

#[test]
fn a_publication_that_is_for_all_tables_shows_whom_it_harms_and_stays() {
    let captured = filter(&["*.*"]);
    let whole = Publication { is_by_table: false, ..publication(&[]) };
    let present = Present { main: Some(&whole), inserts: None };
    let planned = plan(&[keyless("public.log")], &wanted_of(&captured), present);
    assert!(planned.is_empty());
    assert_eq!(planned.harmed[0].table, name("public.log"));
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

fn any_part() -> impl Strategy<Value = Published> {
    let columns = proptest::option::of(proptest::sample::subsequence(vec!["a", "b", "c"], 1..3));
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
    fn one_change_leads_from_any_publications_to_the_wanted_ones(
        before in proptest::option::of((any_tables(), any_operations(), any::<bool>())),
        held in proptest::option::of((any_tables(), any_operations())),
        existing in proptest::sample::subsequence(
            vec!["public.a", "public.b", "audit.a", "audit.b"], 0..=4),
        without in proptest::sample::subsequence(
            vec!["public.a", "public.b", "audit.a", "audit.b"], 0..=4),
        published in any_tables(),
        skipped in any_operations(),
        via_root: bool,
    ) {
        let of = |text: &&str| {
            let mut found = candidate(text);
            // An index of no column is in every list.
            found.leaves[0].index = (!without.contains(text)).then(Vec::new);
            found
        };
        let all: Vec<Candidate> = existing.iter().map(of).collect();
        let main = before.map(|(tables, operations, via_root)| Publication {
            tables, operations, via_root, ..publication(&[])
        });
        let inserts = held.map(|(tables, operations)| Publication {
            tables, operations, ..publication(&[])
        });
        let captured = filter(&["public.*"]);
        let wanted = Wanted {
            skipped: &skipped, via_root, published: &published, ..wanted_of(&captured)
        };
        let present = Present { main: main.as_ref(), inserts: inserts.as_ref() };
        let change = plan(&all, &wanted, present);
        let after = carried_out(main.clone(), &change.main);
        let after_inserts = carried_out(inserts.clone(), &change.inserts);
        let (mut main, mut inserts) = (main, inserts);
        for part in change.one_by_one() {
            prop_assert!(part.by_table().len() <= 1, "{:?}", part);
            main = Some(carried_out(main, &part.main));
            inserts = Some(carried_out(inserts, &part.inserts));
        }
        prop_assert_eq!(main.unwrap_or_else(|| publication(&[])), after.clone(), "one by one");
        let inserts = inserts.unwrap_or_else(|| publication(&[]));
        prop_assert_eq!(inserts, after_inserts.clone(), "one by one");
        prop_assert_eq!(&after.operations, &wanted.operations(&Operation::ALL));
        let operations = wanted.operations(&[Operation::Insert, Operation::Truncate]);
        prop_assert_eq!(&after_inserts.operations, &operations);
        prop_assert_eq!((after.via_root, after_inserts.via_root), (via_root, via_root));
        let is_whole = |candidate: &&Candidate| {
            !wanted.needs_identity() || candidate.leaves[0].index.is_some()
        };
        let expected = |whole: bool| -> BTreeMap<TableName, Published> {
            all.iter()
                .filter(|candidate| candidate.table.schema == "public")
                .filter(|candidate| is_whole(candidate) == whole)
                .map(|candidate| candidate.table.clone())
                .map(|table| {
                    let part = published.get(&table).cloned().unwrap_or_default();
                    (table, part)
                })
                .collect()
        };
        prop_assert_eq!(&after.tables, &expected(true));
        prop_assert_eq!(&after_inserts.tables, &expected(false));
        let after = Present { main: Some(&after), inserts: Some(&after_inserts) };
        let again = plan(&all, &wanted, after);
        prop_assert!(again.is_empty() && again.harmed.is_empty(), "{:?}", again);
    }
}

#[test]
fn a_table_of_somebody_else_that_loses_its_updates_only_leaves() {
    let mut rides = candidate("public.rides");
    rides.is_owned = false;
    let captured = filter(&["*.*"]);
    // Its list lacks the identity; with it, it would be put in again, which only its owner may do.
    let mut main = publication(&["public.rides"]);
    main.tables.insert(name("public.rides"), part(&["note"], None));
    let planned =
        plan(&[rides.clone()], &wanted_of(&captured), Present { main: Some(&main), inserts: None });
    assert_eq!(planned.main.remove, [name("public.rides")]);
    assert!(planned.main.alter.is_empty() && planned.main.not_owned.is_empty(), "{planned:?}");
    assert_eq!(planned.urgent(), [name("public.rides")].into());
    assert_eq!(planned.left_out.len(), 1);
    // Its owner does both.
    rides.is_owned = true;
    let planned =
        plan(&[rides], &wanted_of(&captured), Present { main: Some(&main), inserts: None });
    assert!(planned.main.remove.is_empty() && planned.main.alter.len() == 1, "{planned:?}");
}

#[test]
fn a_table_whose_filter_can_not_be_read_stays_where_it_is() {
    let mut keyless = candidate("public.rides");
    keyless.leaves[0].index = None;
    let captured = filter(&["*.*"]);
    let mut main = publication(&["public.rides"]);
    main.unread.insert(name("public.rides"));
    let other = publication(&[]);
    for (main, inserts) in [(&main, &other), (&other, &main)] {
        for candidate in [candidate("public.rides"), keyless.clone()] {
            let present = Present { main: Some(main), inserts: Some(inserts) };
            let planned = plan(&[candidate], &wanted_of(&captured), present);
            for change in [&planned.main, &planned.inserts] {
                let tables = (change.add.len(), change.alter.len(), change.remove.len());
                assert_eq!(tables, (0, 0, 0), "{change:?}");
            }
        }
    }
}

#[test]
fn the_table_of_signals_is_published_though_nobody_captures_it() {
    let captured = filter(&["public.*"]);
    let signals =
        SignalTable { schema: "ops".to_owned(), name: "signals".to_owned(), is_published: false };
    let wanted = Wanted { signals: Some(&signals), ..wanted_of(&captured) };
    let all = [candidate("public.rides"), candidate("ops.signals"), candidate("ops.other")];
    let added = |plan: Plan| -> Vec<String> {
        plan.main.add.iter().map(|added| added.table.to_string()).collect()
    };
    assert_eq!(added(plan(&all, &wanted, Present::default())), ["public.rides", "ops.signals"]);
    let main = publication(&["public.rides", "ops.signals"]);
    let present = Present { main: Some(&main), inserts: None };
    let prepared = Wanted { inserts: Inserts::Untouched, ..wanted };
    assert!(plan(&all, &prepared, present).is_empty(), "it stays");
    let other = publication(&["public.rides"]);
    let present = Present { main: Some(&other), inserts: None };
    let mut later = plan(&all, &prepared, present);
    assert!(later.put_off_gains(|table| table.schema != "ops").is_empty(), "no row is read");
    assert_eq!(added(later), ["ops.signals"]);
    // Without an identity its rows come as well, and nobody misses their updates.
    let planned = plan(&[keyless("ops.signals")], &wanted, Present::default());
    assert_eq!(planned.inserts.add.len(), 1);
    assert!(planned.insert_only.is_empty());
}

#[test]
fn a_publication_that_is_not_by_table_harms_only_what_it_covers() {
    let captured = filter(&["*.*"]);
    let mut tree = keyless("public.days");
    let part = |text: &str| keyless(text).leaves.remove(0);
    tree.leaves = vec![part("shop.days_1"), part("public.days_2")];
    let all = [keyless("public.log"), tree];
    for (covers, harmed) in [
        // One for all tables that leaves these out; one for a schema with a partition in it.
        (&[][..], &[][..]),
        (&["public.log"], &[("public.log", "it has no replica identity")]),
        (&["shop.days_1"], &[("public.days", "partition shop.days_1: it has no replica identity")]),
        (
            &["public.days"],
            &[("public.days", "partition shop.days_1: it has no replica identity (and 1 more)")],
        ),
    ] {
        let covers = Some(covers.iter().map(|&text| name(text)).collect());
        let whole = Publication { is_by_table: false, covers, ..publication(&[]) };
        let present = Present { main: Some(&whole), inserts: None };
        let planned = plan(&all, &wanted_of(&captured), present);
        let found: Vec<(String, &str)> =
            planned.harmed.iter().map(|of| (of.table.to_string(), of.cause.as_str())).collect();
        let found: Vec<(&str, &str)> = found.iter().map(|(t, c)| (t.as_str(), *c)).collect();
        assert_eq!(found, harmed);
    }
}
