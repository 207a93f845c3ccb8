//! Topics: which table has which, and what is refused.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::names::metric_name;
use super::*;
use crate::config::{Config, Errors, Format, Kafka, Table};

fn router(tables: &[(&str, Table)]) -> Router {
    let tables = tables.iter().map(|(name, table)| ((*name).to_owned(), table.clone()));
    router_of(Config { tables: tables.collect(), ..Config::default() })
}

fn router_of(config: Config) -> Router {
    let kafka = Kafka { brokers: Some("b:9092".to_owned()), ..Kafka::default() };
    let config = Config { name: Some("nyc".to_owned()), kafka, ..config };
    Router::new(&config.resolve("taxi").unwrap(), "taxi")
}

fn by_template(template: &str) -> Topics {
    Topics { template: template.to_owned(), ..Topics::default() }
}

fn with_topic(topic: &str) -> Table {
    Table { topic: Some(topic.to_owned()), ..Table::default() }
}

#[test]
fn of_two_tables_with_one_topic_the_first_has_it_and_the_other_is_told_what_to_write() {
    for (first, second, fix) in [
        (
            ("public", "x_y"),
            ("public", "x y"),
            r#"[tables."public.x y"] topic = "nyc.public.x_u0020y"; or, for all tables, [topics] escape = "unicode""#,
        ),
        (
            ("public", "данные"),
            ("public", "записи"),
            r#"[tables."public.записи"] topic = "nyc.public._u0437_u0430_u043f_u0438_u0441_u0438"; or, for all tables, [topics] escape = "unicode""#,
        ),
        (
            ("a.b", "c"),
            ("a", "b.c"),
            r#"[tables."a.b.c"] topic = "nyc.a.b_u002ec"; or, for all tables, [topics] escape = "unicode""#,
        ),
        // Unicode leaves these two as they are.
        (("a", "b_c"), ("a_b", "c"), r#"[tables."a_b.c"] topic = "nyc.a_b.c-2""#),
    ] {
        let mut router = router(&[]);
        router.topic(1, first.0, first.1).unwrap();
        router.topic(1, first.0, first.1).unwrap();
        let refusal = router.topic(2, second.0, second.1).unwrap_err();
        for name in [first, second] {
            let named = Named { oid: 0, schema: name.0.to_owned(), name: name.1.to_owned() };
            assert!(refusal.to_string().contains(&named.to_string()), "no {named} in: {refusal}");
        }
        assert_eq!(refusal.fix(), fix);
    }
}

#[test]
fn a_table_does_not_get_a_topic_of_rowcasts_own() {
    let of = |config: Config, table: &str| router_of(config).topic(1, "public", table);
    let plain = || Config { topics: by_template("{prefix}.{table}"), ..Config::default() };
    let transactions =
        || Config { format: Format { transaction_metadata: true, ..Format::default() }, ..plain() };
    let skipping = || Config {
        errors: Errors { on_error: Some(OnError::SkipWithDeadLetter), ..Errors::default() },
        ..plain()
    };
    let oversize = || Config {
        errors: Errors { on_oversize: Some(OnOversize::DeadLetter), ..Errors::default() },
        ..plain()
    };
    let checkpoints = Topics { checkpoints: "nyc.state".to_owned(), ..plain().topics };
    let checkpoints = Config { topics: checkpoints, ..Config::default() };
    for (config, table, what) in [
        (plain(), "message", "logical messages"),
        (transactions(), "transaction", "records around transactions"),
        (skipping(), "dead-letter", "dead letters"),
        (oversize(), "dead letter", "can't be next to"),
        // Where a logical message goes that can't be published.
        (plain(), "dead-letter", "dead letters"),
        (checkpoints, "state", "checkpoints"),
    ] {
        // "dead letter" is another topic, and not refused.
        match of(config, table) {
            Err(refusal) => {
                assert!(refusal.to_string().contains(what), "{refusal}");
                assert!(refusal.fix().contains(&format!("[tables.\"public.{table}\"] topic = ")));
            }
            Ok(plan) => assert_eq!(&*plan.name, "nyc.dead_letter"),
        }
    }
    // Nothing of the kind is published.
    of(plain(), "transaction").unwrap();
    let stops = || Config {
        errors: Errors {
            on_error: Some(OnError::Fail),
            on_oversize: Some(OnOversize::Fail),
            ..Errors::default()
        },
        ..plain()
    };
    of(stops(), "dead-letter").unwrap();
    of(Config::default(), "message").unwrap();
}

#[test]
fn a_given_topic_may_serve_several_tables() {
    let shared = with_topic("all");
    let mut router = router(&[("a.t", shared.clone()), ("b.t", shared)]);
    let (a, b) = (router.topic(1, "a", "t").unwrap(), router.topic(2, "b", "t").unwrap());
    assert_eq!(a.name, b.name);
    assert_eq!(router.shares_with(2).unwrap().to_string(), "a.t");
}

#[test]
fn an_exact_name_comes_before_a_glob_and_globs_in_alphabetical_order() {
    let mut router = router(&[
        ("*.rides", with_topic("any-schema")),
        ("public.*", with_topic("any-table")),
        ("public.rides", with_topic("exact")),
    ]);
    assert_eq!(&*router.topic(1, "public", "rides").unwrap().name, "exact");
    assert_eq!(&*router.topic(2, "other", "rides").unwrap().name, "any-schema");
    assert_eq!(&*router.topic(3, "public", "zones").unwrap().name, "any-table");
}

#[test]
fn a_name_that_kafka_refuses_is_an_error() {
    for topic in ["", ".", "..", "a b", &"x".repeat(250), "__consumer_offsets"] {
        let mut router = router(&[("public.rides", with_topic(topic))]);
        let refusal = router.topic(1, "public", "rides").unwrap_err();
        assert!(matches!(refusal.conflict, Conflict::Name(_)), "{refusal}");
    }
}

#[test]
fn a_tables_settings_lie_over_the_general_ones() {
    let topics = Topics {
        settings: [("a", "1"), ("b", "1")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        ..Topics::default()
    };
    let table = Table {
        partitions: Some(2),
        settings: [("b".to_owned(), "2".to_owned())].into(),
        ..Table::default()
    };
    let tables = [("public.rides".to_owned(), table)].into();
    let mut router = router_of(Config { topics, tables, ..Config::default() });
    let plan = router.topic(1, "public", "rides").unwrap();
    assert_eq!(plan.partitions, 2);
    let settings: Vec<_> = plan.settings.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(settings, ["a=1", "b=2"]);
}

/// Few letters, so that names meet: dots, spaces, underscores, case, what is not ASCII.
fn a_name() -> impl Strategy<Value = String> {
    let piece =
        prop::sample::select(vec!["a", "A", ".", "_", " ", "-", "é", "é", "я", "😀", "_u0020"]);
    prop::collection::vec(piece, 1..4).prop_map(|pieces| pieces.concat())
}

fn tables() -> impl Strategy<Value = Vec<Named>> {
    let names = prop::collection::btree_set((a_name(), a_name()), 1..25);
    names.prop_map(|names| {
        let named = |(oid, (schema, name))| Named { oid, schema, name };
        (1..).zip(names).map(named).collect()
    })
}

proptest! {
    #[test]
    fn no_two_tables_share_a_topic_or_its_metrics_and_each_that_gets_none_is_named(
        tables in tables(),
        template in prop::sample::select(vec![
            "{prefix}.{schema}.{table}", "{prefix}.{table}", "{table}", "{schema}_{table}", "all",
        ]),
        escape in prop::sample::select(vec![TopicEscape::Underscore, TopicEscape::Unicode]),
        existing in prop::collection::vec(a_name(), 0..3),
    ) {
        let topics = Topics { escape, ..by_template(template) };
        let mut router = router_of(Config { topics, ..Config::default() });
        let existing = existing.iter().map(|name| format!("nyc.{name}")).collect();
        router.set_existing(Arc::new(existing));
        let refused = router.assign(&tables);
        let mut by_metric = BTreeMap::new();
        for table in &tables {
            let refusal = refused.iter().find(|refusal| refusal.table == *table);
            let Some(topic) = router.held_by(table.oid) else {
                let refusal = refusal.expect("it has a topic, or is refused");
                prop_assert!(refusal.to_string().contains(&table.to_string()), "{}", refusal);
                continue;
            };
            prop_assert!(refusal.is_none());
            prop_assert_eq!(check(topic), Ok(()));
            let other = by_metric.insert(metric_name(topic), table);
            prop_assert!(other.is_none(), "{} is {}'s and {}'s", topic, table, other.unwrap());
        }
        // The same in the same order, and whoever has a topic keeps it when others come.
        let again: BTreeSet<u32> = router.assign(&tables).iter().map(|it| it.table.oid).collect();
        let before: BTreeSet<u32> = refused.iter().map(|it| it.table.oid).collect();
        prop_assert_eq!(again, before);
    }

    #[test]
    fn what_a_refusal_says_to_write_gives_the_table_a_topic(tables in tables()) {
        let mut router = router_of(Config::default());
        for refusal in router.assign(&tables) {
            let table = &refusal.table;
            let topic = refusal.free.clone().expect("there is always one");
            let pattern = crate::config::TablePattern::exact(&table.schema, &table.name);
            let own = [(pattern, with_topic(&topic))].into();
            let mut mended = router_of(Config { tables: own, ..Config::default() });
            let held = tables.iter().filter(|other| router.held_by(other.oid).is_some());
            prop_assert!(mended.assign(held).is_empty());
            prop_assert!(mended.topic(table.oid, &table.schema, &table.name).is_ok());
            prop_assert_eq!(&**mended.held_by(table.oid).unwrap(), &*topic);
        }
    }

    #[test]
    fn with_unicode_only_dots_and_underscores_still_meet(tables in tables()) {
        let topics = Topics { escape: TopicEscape::Unicode, ..Topics::default() };
        let mut router = router_of(Config { topics, ..Config::default() });
        for refusal in router.assign(&tables) {
            prop_assert!(matches!(refusal.conflict, Conflict::Metric { .. }), "{}", refusal);
            prop_assert!(!refusal.unicode_helps);
        }
    }
}
