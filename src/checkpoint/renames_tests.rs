//! Tables that are renamed, moved, swapped, attached, dropped.

use proptest::prelude::*;

use super::*;
use crate::checkpoint::remembered::Root;
use crate::config::Table;

/// Settings and what is remembered, as a pipeline has them.
struct Pipeline {
    captured: TableFilter,
    tables: TableSettings,
    signals: Option<SignalTable>,
    via_root: bool,
    remembered: BTreeMap<u32, Remembered>,
}

impl Pipeline {
    fn new(settings: &[(&str, Table)]) -> Self {
        let include = ["public.*".to_owned(), "moved.*".to_owned()];
        let captured = TableFilter::parse(&include, &["*.secret_*".to_owned()]).unwrap();
        let mut new = Self {
            captured,
            tables: TableSettings::default(),
            signals: None,
            via_root: true,
            remembered: BTreeMap::new(),
        };
        new.set(settings);
        new
    }

    fn set(&mut self, settings: &[(&str, Table)]) {
        let settings = settings.iter().map(|(name, table)| ((*name).to_owned(), table.clone()));
        self.tables = TableSettings::parse(&settings.collect()).unwrap();
    }

    fn rules(&self) -> Rules<'_> {
        Rules {
            captured: &self.captured,
            tables: &self.tables,
            signals: self.signals.as_ref(),
            via_root: self.via_root,
        }
    }

    /// A look, after which what it found holds.
    fn look(&mut self, present: &[Present]) -> Looked {
        self.look_at(present, 10, 0)
    }

    fn look_at(&mut self, present: &[Present], wal_end: u64, through: u64) -> Looked {
        let moment = Moment { wal_end: Lsn::from(wal_end), through: Lsn::from(through) };
        let looked = look(&self.remembered, present, &self.rules(), &DatabaseId::default(), moment);
        for now in &looked.remember {
            self.remembered.insert(now.oid, now.clone());
        }
        for oid in &looked.forget {
            self.remembered.remove(oid);
        }
        looked
    }
}

fn called(name: &str) -> Identity {
    let (schema, table) = name.split_once('.').unwrap();
    Identity { schema: schema.to_owned(), table: table.to_owned(), root: None }
}

fn part_of(name: &str, oid: u32, root: &str) -> Identity {
    let Identity { schema, table, .. } = called(root);
    Identity { root: Some(Root { oid, schema, table }), ..called(name) }
}

fn present(oid: u32, name: &str, columns: &[&str]) -> Present {
    with(oid, called(name), columns)
}

fn with(oid: u32, identity: Identity, columns: &[&str]) -> Present {
    let columns = (1..).zip(columns.iter().map(|&name| name.to_owned())).collect();
    Present { oid, identity, columns }
}

fn without(columns: &[&str]) -> Table {
    let columns = columns.iter().map(|&column| column.to_owned()).collect();
    Table { exclude_columns: Some(columns), ..Table::default() }
}

const CARDS: &[&str] = &["id", "pan"];

fn cards() -> Pipeline {
    let mut pipeline = Pipeline::new(&[("public.cards", without(&["pan"]))]);
    let first =
        pipeline.look(&[present(1, "public.cards", CARDS), present(2, "public.secret_a", &[])]);
    assert_eq!((first.held.len(), first.remember.len(), first.replaced.len()), (0, 2, 0));
    pipeline
}

#[test]
fn rows_of_a_signal_table_are_not_published_under_another_name() {
    let mut pipeline = Pipeline::new(&[]);
    let captured = pipeline.captured.clone();
    (pipeline.signals, pipeline.captured) = SignalTable::settle(Some("public.signals"), captured);
    assert!(pipeline.look(&[present(1, "public.signals", &["id"])]).held.is_empty());
    let looked = pipeline.look(&[present(1, "public.other", &["id"])]);
    let held = &looked.held[&1];
    assert_eq!(held.lost, [Loosened::Signals]);
    assert!(held.fix.starts_with("set postgres.signal_table = \"public.other\""), "{}", held.fix);
}

#[test]
fn a_table_is_held_back_until_its_name_or_its_settings_are_others() {
    let mut pipeline = cards();
    let renamed = [present(1, "public.payment_cards", CARDS)];
    let held = pipeline.look(&renamed).held;
    assert_eq!(
        held[&1].to_string(),
        "public.cards is called public.payment_cards now, and this no longer applies to it: \
         exclude_columns of \"pan\""
    );
    assert!(held[&1].fix.starts_with(
        "write in [tables.\"public.payment_cards\"]: exclude_columns = [\"pan\"]; or, if"
    ));
    assert!(pipeline.remembered[&1].is_behind);
    assert_eq!(pipeline.look(&renamed).held, held, "it stays so");
    assert_eq!(pipeline.remembered[&1].identity, called("public.cards"), "what it was is kept");

    pipeline.set(&[("public.payment_cards", without(&["pan"]))]);
    let settled = pipeline.look(&renamed);
    assert_eq!((settled.held.len(), settled.released.len()), (0, 1));
    assert_eq!(settled.renamed.len(), 1);
    assert_eq!(pipeline.remembered[&1].identity, called("public.payment_cards"));

    let mut pipeline = cards();
    assert_eq!(pipeline.look(&renamed).held.len(), 1);
    let back = pipeline.look(&[present(1, "public.cards", CARDS)]);
    assert_eq!((back.held.len(), back.released.len()), (0, 1));
}

#[test]
fn what_the_operator_means_is_done() {
    let mut pipeline = cards();
    let meant = Table { renamed_from: Some(vec!["public.cards".to_owned()]), ..Table::default() };
    pipeline.set(&[("public.payment_cards", meant)]);
    assert_eq!(pipeline.look(&[present(1, "public.payment_cards", CARDS)]).held.len(), 0);
    // Of a table that is called as before, other settings are meant.
    let mut pipeline = cards();
    pipeline.set(&[]);
    assert_eq!(pipeline.look(&[present(1, "public.cards", CARDS)]).held.len(), 0);
    assert!(pipeline.remembered[&1].hiding.is_open());
    // Of another table nothing is meant.
    let mut pipeline = cards();
    let meant = Table { renamed_from: Some(vec!["public.others".to_owned()]), ..Table::default() };
    pipeline.set(&[("public.payment_cards", meant)]);
    assert_eq!(pipeline.look(&[present(1, "public.payment_cards", CARDS)]).held.len(), 1);
}

#[test]
fn a_column_is_followed_by_its_number() {
    let mut pipeline = cards();
    let held = pipeline.look(&[present(1, "public.cards", &["id", "number"])]).held;
    assert!(held[&1].fix.contains("exclude_columns = [\"pan\", \"number\"]"), "{}", held[&1].fix);
    assert!(held[&1].fix.contains("renamed_from = [\"pan\"]"), "{}", held[&1].fix);
    let mut pipeline = cards();
    assert_eq!(
        pipeline.look(&[present(1, "public.cards", &["pan", "id"])]).held.len(),
        1,
        "swapped"
    );
    let mut pipeline = cards();
    assert_eq!(pipeline.look(&[present(1, "public.cards", &["key", "pan"])]).held.len(), 0);
    pipeline.set(&[("public.cards", without(&["pan", "number"]))]);
    assert_eq!(pipeline.look(&[present(1, "public.cards", &["key", "number"])]).held.len(), 0);
}

#[test]
fn an_exclusion_follows_and_a_tightening_holds() {
    let mut pipeline = cards();
    let held = pipeline.look(&[present(2, "public.open", &[])]).held;
    assert!(held[&2].fix.starts_with("add \"public.open\" to postgres.exclude_tables"));
    let mut pipeline = cards();
    let tight = pipeline.look(&[present(1, "public.secret_cards", CARDS)]);
    assert_eq!(tight.held.len(), 0);
    assert!(pipeline.remembered[&1].hiding.excluded);
    assert_eq!(pipeline.look(&[present(1, "public.cards", CARDS)]).held.len(), 1);
}

#[test]
fn a_table_that_left_is_what_it_was_when_it_comes_back() {
    let mut pipeline = cards();
    assert_eq!(pipeline.look(&[present(1, "away.cards", CARDS)]).held.len(), 0);
    assert_eq!(pipeline.look(&[present(1, "public.others", CARDS)]).held.len(), 1);
}

#[test]
fn a_partition_has_the_rules_of_its_root() {
    let mut pipeline = Pipeline::new(&[("public.cards", without(&["pan"]))]);
    let root = present(1, "public.cards", CARDS);
    let part = with(2, part_of("public.cards_1", 1, "public.cards"), CARDS);
    pipeline.look(&[root.clone(), part]);
    let detached = pipeline.look(&[root.clone(), present(2, "public.cards_1", CARDS)]);
    assert_eq!(detached.held[&2].former, "public.cards");
    // With its root, it follows the root.
    let moved = with(2, part_of("moved.cards_1", 1, "public.cards"), CARDS);
    assert_eq!(pipeline.look(&[root, moved]).held.len(), 0);

    let mut pipeline = Pipeline::new(&[("public.cards_1", without(&["pan"]))]);
    let root = present(1, "public.cards", CARDS);
    pipeline.look(&[root.clone(), present(2, "public.cards_1", CARDS)]);
    let part = with(2, part_of("public.cards_1", 1, "public.cards"), CARDS);
    let attached = pipeline.look(&[root, part]);
    assert_eq!(attached.held[&1].by_partition, Some(2), "its rows would come as the root's");
}

#[test]
fn another_way_to_publish_partitions_is_no_rename() {
    let mut pipeline = Pipeline::new(&[("public.cards", without(&["pan"]))]);
    let tables = [
        present(1, "public.cards", CARDS),
        with(2, part_of("public.cards_1", 1, "public.cards"), CARDS),
    ];
    pipeline.look(&tables);
    pipeline.via_root = false;
    assert_eq!(pipeline.look(&tables).held.len(), 0);
}

#[test]
fn another_table_under_a_name_is_a_new_one() {
    let mut pipeline = Pipeline::new(&[]);
    pipeline.look(&[present(1, "public.a", &[]), present(2, "public.b", &[])]);
    let swapped = pipeline.look(&[present(1, "public.b", &[]), present(2, "public.a", &[])]);
    assert_eq!((swapped.replaced.len(), swapped.released.len()), (2, 2));
    let made_again = pipeline.look(&[present(1, "public.b", &[]), present(3, "public.a", &[])]);
    assert_eq!(made_again.replaced, [called("public.a")].into());
    assert_eq!(made_again.forget, [2]);
    let renamed = pipeline.look(&[present(1, "public.c", &[]), present(3, "public.a", &[])]);
    assert_eq!((renamed.replaced.len(), renamed.renamed.len()), (0, 1));
}

#[test]
fn what_is_gone_is_forgotten_once_the_stream_has_passed_it() {
    let mut pipeline = cards();
    let secret = present(2, "public.secret_a", &[]);
    let gone = pipeline.look_at(std::slice::from_ref(&secret), 10, 0);
    assert!(gone.forget.is_empty());
    pipeline.set(&[("*.cards", without(&["pan"]))]);
    assert!(pipeline.look_at(std::slice::from_ref(&secret), 20, 9).forget.is_empty());
    assert_eq!(pipeline.look_at(&[secret], 20, 10).forget, [1]);
    // As long as it is named, its name is no slip of the pen.
    let mut pipeline = cards();
    pipeline.look_at(&[], 10, 0);
    assert_eq!(pipeline.look_at(&[], 20, 20).forget, [2]);
    // Also under a name that it had before.
    let mut pipeline = cards();
    pipeline.set(&[("public.cards", without(&["pan"])), ("moved.*", without(&["pan"]))]);
    for name in ["moved.cards", "moved.others"] {
        assert_eq!(pipeline.look(&[present(1, name, CARDS)]).held.len(), 0);
        let was = ("public".to_owned(), "cards".to_owned());
        assert_eq!(pipeline.remembered[&1].formers, [was].into(), "{name}");
    }
    pipeline.look_at(&[], 10, 0);
    assert_eq!(pipeline.look_at(&[], 20, 20).forget, [2]);
    pipeline.set(&[]);
    assert_eq!(pipeline.look_at(&[], 20, 20).forget, [1]);
}

#[test]
fn what_is_gone_is_not_remembered_for_a_name_that_a_table_has() {
    // Partitions that come and go, of a root whose settings name it.
    let mut pipeline = Pipeline::new(&[("public.cards", without(&["pan"]))]);
    let root = present(1, "public.cards", CARDS);
    for day in 2..30 {
        let part = with(day, part_of(&format!("public.cards_{day}"), 1, "public.cards"), CARDS);
        let at = u64::from(day) * 10;
        pipeline.look_at(&[root.clone(), part], at, at);
        assert!(pipeline.remembered.len() <= 3, "day {day}: {:?}", pipeline.remembered.keys());
    }
    // The last one to have the name is remembered by it.
    pipeline.look_at(&[], 1000, 1000);
    pipeline.look_at(&[], 1000, 1000);
    assert!(pipeline.remembered.contains_key(&1));
    // A table that is dropped and created again.
    let mut pipeline = cards();
    for oid in 3..30 {
        let at = u64::from(oid) * 10;
        pipeline.look_at(&[present(oid, "public.cards", CARDS)], at, at);
        assert!(pipeline.remembered.len() <= 3, "table {oid}: {:?}", pipeline.remembered.keys());
    }
    // One that is there, and is not remembered, does not count.
    let mut pipeline = cards();
    pipeline.captured =
        TableFilter::parse(&["moved.*".to_owned()], &[]).expect("a filter without the name");
    let other = present(3, "public.cards", CARDS);
    pipeline.look_at(std::slice::from_ref(&other), 10, 0);
    assert_eq!(pipeline.look_at(&[other], 20, 20).forget, [2]);
}

#[test]
fn the_stream_may_speak_of_long_ago() {
    let pipeline = cards();
    let before = &pipeline.remembered[&1];
    let judge = |name: &str, described: &[&str], now: &[&str]| {
        let now = present(1, name, now).columns;
        let columns = named_in_stream(before, &now, described);
        pipeline.rules().judge(before, &called(name), &columns).is_some()
    };
    assert!(!judge("public.cards", &["id", "pan"], &["id", "pan"]));
    assert!(judge("public.payment_cards", &["id", "pan"], &["id", "pan"]));
    // Renamed later: it still has the name by which it is kept back.
    assert!(!judge("public.cards", &["id", "pan"], &["id", "number"]));
    assert!(judge("public.cards", &["id", "number"], &["id", "number"]));
    // Renamed there and back: nobody knows it, and it may be the one that is missing.
    assert!(judge("public.cards", &["id", "number"], &["id", "pan"]));
    assert!(!judge("public.cards", &["id", "pan", "number"], &["id", "pan"]));
    // The table is gone.
    assert!(!judge("public.cards", &["id", "pan"], &[]));
    assert!(judge("public.cards", &["id", "number"], &[]));
}

#[test]
fn a_column_that_was_dropped_is_remembered_until_the_stream_has_passed_that() {
    let mut pipeline = cards();
    let dropped = [present(1, "public.cards", &["id"])];
    pipeline.look_at(&dropped, 10, 5);
    let judge = |pipeline: &Pipeline| {
        let before = &pipeline.remembered[&1];
        let columns = named_in_stream(before, &dropped[0].columns, &["id", "number"]);
        pipeline.rules().judge(before, &called("public.cards"), &columns).is_some()
    };
    assert!(judge(&pipeline), "it was called number before it was dropped, perhaps");
    pipeline.look_at(&dropped, 20, 9);
    assert!(judge(&pipeline), "the end of the WAL is that of the look that missed it first");
    pipeline.look_at(&dropped, 30, 10);
    assert!(!judge(&pipeline));
    assert!(pipeline.remembered[&1].dropped_columns.is_empty());
}

/// What is done to tables: two schemas, a few names, two columns.
#[derive(Debug, Clone)]
enum Step {
    Rename(usize, usize),
    SwapColumns(usize),
    RenameColumn(usize, bool),
    Look,
}

const NAMES: &[&str] = &["public.cards", "public.open", "moved.cards", "public.secret_x", "away.t"];

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..3_usize, 0..NAMES.len()).prop_map(|(table, name)| Step::Rename(table, name)),
        (0..3_usize).prop_map(Step::SwapColumns),
        (0..3_usize, any::<bool>()).prop_map(|(table, is_new)| Step::RenameColumn(table, is_new)),
        Just(Step::Look),
    ]
}

proptest! {
    /// The second column of the first table, and all of the third, were kept back at the start, and
    /// the settings stay as they are: so they are kept back for ever.
    #[test]
    fn nothing_that_was_kept_back_is_ever_published(steps in proptest::collection::vec(any_step(), 0..24)) {
        let mut pipeline = Pipeline::new(&[("public.cards", without(&["pan"]))]);
        let mut names = [0, 1, 3];
        let mut columns = [["id", "pan"], ["id", "pan"], ["id", "pan"]];
        let tables = |names: &[usize; 3], columns: &[[&str; 2]; 3]| -> Vec<Present> {
            let all = names.iter().zip(columns).zip(1..);
            all.map(|((name, columns), oid)| present(oid, NAMES[*name], columns)).collect()
        };
        pipeline.look(&tables(&names, &columns));
        for step in steps {
            match step {
                Step::Rename(table, name) if !names.contains(&name) => names[table] = name,
                Step::SwapColumns(table) => columns[table].reverse(),
                Step::RenameColumn(table, is_new) => columns[table][1] = if is_new { "number" } else { "pan" },
                Step::Rename(..) | Step::Look => {}
            }
            if columns.iter().any(|[a, b]| a == b) {
                break;
            }
            let now = tables(&names, &columns);
            let looked = pipeline.look(&now);
            for table in &now {
                let rules = pipeline.rules();
                let is_published = rules.fate(&table.identity) == Fate::Captured
                    && !looked.held.contains_key(&table.oid);
                if !is_published {
                    continue;
                }
                prop_assert_ne!(table.oid, 3, "it was excluded");
                let Identity { schema, table: name, .. } = &table.identity;
                let hides = |column: &str| {
                    rules.tables.columns(schema, name).is_some_and(|rules| !rules.publishes(column))
                };
                prop_assert!(table.oid != 1 || hides(&table.columns[&2]), "{:?}", table);
            }
        }
    }
}
