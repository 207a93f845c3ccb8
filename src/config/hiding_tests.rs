//! What is kept back is never less after the line that an error names was written.

use proptest::prelude::*;

use super::*;

fn table(toml: &str) -> Table {
    let text = format!("[tables.\"a.b\"]\n{toml}");
    let tree: toml_edit::DocumentMut = text.parse().unwrap();
    let json = tree["tables"]["a.b"].as_table().unwrap();
    let list = |key: &str| {
        let items = json.get(key)?.as_array()?;
        Some(items.iter().map(|item| item.as_str().unwrap().to_owned()).collect::<Vec<_>>())
    };
    let counts = |key: &str| {
        let items = json.get(key)?.as_inline_table()?.iter();
        let count = |value: &toml_edit::Value| u32::try_from(value.as_integer().unwrap()).unwrap();
        Some(items.map(|(name, value)| (name.to_owned(), count(value))).collect::<BTreeMap<_, _>>())
    };
    Table {
        key: list("key"),
        columns: list("columns"),
        exclude_columns: list("exclude_columns"),
        mask: counts("mask"),
        hash: list("hash"),
        truncate: counts("truncate"),
        r#where: json.get("where").and_then(|item| item.as_str()).map(str::to_owned),
        ..Table::default()
    }
}

fn hiding(toml: &str) -> Hiding {
    Hiding::of_settings(&table(toml))
}

fn called<'a>(columns: &[(&'a str, &'a str)]) -> Vec<NamedColumn<'a>> {
    columns.iter().map(|&(former, now)| NamedColumn { formers: vec![former], now }).collect()
}

#[test]
fn each_rule_is_compared_with_each() {
    // From the weakest to the strictest.
    let rules = [
        "",
        "truncate = { c = 9 }",
        "truncate = { c = 2 }",
        "hash = [\"c\"]",
        "mask = { c = 2 }",
        "exclude_columns = [\"c\"]",
    ];
    for (before, strict) in rules.iter().enumerate() {
        for (after, other) in rules.iter().enumerate() {
            let lost = hiding(strict).loosened(&hiding(other), &called(&[("c", "c"), ("d", "d")]));
            assert_eq!(lost.is_empty(), after >= before, "{strict:?} to {other:?}: {lost:?}");
        }
    }
    assert_eq!(
        hiding("mask = { c = 9 }").loosened(&hiding("mask = { c = 1 }"), &called(&[("c", "c")])),
        []
    );
}

#[test]
fn what_lets_everything_through_keeps_nothing_back() {
    for open in
        ["columns = [\"*\"]", "where = \" TRUE\"", "mask = {}", "hash = []", "key = [\"c\"]"]
    {
        assert!(hiding(open).is_open(), "{open}");
    }
}

#[test]
fn rows_and_keys_are_compared_too() {
    let columns = called(&[("id", "id"), ("c", "c")]);
    let lost = |before: &str, after: &str| hiding(before).loosened(&hiding(after), &columns);
    assert_eq!(lost("where = \"a\"", "where = \"b\""), [Loosened::Rows]);
    assert_eq!(lost("where = \"a\"", "where = \"a\""), []);
    assert_eq!(lost("", "where = \"a\""), []);
    let keyed = "key = [\"id\"]\nexclude_columns = [\"c\"]";
    assert_eq!(lost(keyed, "exclude_columns = [\"c\"]"), [Loosened::Key]);
    assert_eq!(lost(keyed, keyed), []);
    assert_eq!(lost(keyed, "key = [\"c\"]\nexclude_columns = [\"c\"]"), [Loosened::Key]);
    assert_eq!(lost(keyed, "key = [\"d\"]\nexclude_columns = [\"c\"]"), []);
}

#[test]
fn a_column_is_compared_by_the_strictest_rule_of_the_names_it_may_have_had() {
    let secret = hiding("exclude_columns = [\"ssn\"]");
    let maybe = NamedColumn { formers: vec!["note", "ssn"], now: "x" };
    assert_eq!(secret.loosened(&secret, &[maybe]).len(), 1);
    let added = called(&[("ssn2", "ssn2")]);
    assert_eq!(secret.loosened(&secret, &added), [], "it was never kept back");
    let glob = hiding("exclude_columns = [\"ssn*\"]");
    assert_eq!(glob.loosened(&hiding(""), &added).len(), 1, "it would have been");
}

fn any_hiding() -> impl Strategy<Value = Hiding> {
    let pattern = || proptest::sample::select(vec!["a", "b", "c", "a*", "?", "[bc]", "*"]);
    let list = move || proptest::collection::vec(pattern().prop_map(str::to_owned), 0..3);
    let counts =
        move || proptest::collection::btree_map(pattern().prop_map(str::to_owned), 0_u32..4, 0..3);
    let rows = proptest::option::of(proptest::sample::select(vec!["x", "y"]));
    let keys = proptest::option::of(proptest::sample::select(vec!["a", "b"]));
    let columns = proptest::option::of(list());
    (columns, list(), counts(), list(), counts(), rows, keys).prop_map(
        |(columns, exclude, mask, hash, truncate, rows, key)| {
            Hiding::of_settings(&Table {
                columns: columns.filter(|list| !list.is_empty()),
                exclude_columns: Some(exclude),
                mask: Some(mask),
                hash: Some(hash),
                truncate: Some(truncate),
                r#where: rows.map(str::to_owned),
                key: key.map(|key| vec![key.to_owned()]),
                ..Table::default()
            })
        },
    )
}

fn any_columns() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    let now = Just(vec!["a", "b", "c", "ab", "d"]).prop_shuffle();
    now.prop_map(|now| ["a", "b", "c", "ab", "d"].into_iter().zip(now).collect())
}

proptest! {
    #[test]
    fn the_line_that_is_named_keeps_back_all_that_was(
        before in any_hiding(), now in any_hiding(), columns in any_columns()
    ) {
        let columns = called(&columns);
        prop_assert_eq!(before.loosened(&before.kept(&now, &columns), &columns), []);
        // As it is written, it is read.
        let line = before.line(&now, &columns, ("public", "t"));
        let settings = line.split_once(": ").unwrap().1.replace("; ", "\n");
        prop_assert_eq!(before.loosened(&hiding(&settings), &columns), []);
    }

    #[test]
    fn nothing_is_lost_by_what_is_the_same_or_excluded(
        before in any_hiding(), now in any_hiding(), columns in any_columns()
    ) {
        let same: Vec<_> = columns.iter().map(|&(former, _)| (former, former)).collect();
        prop_assert_eq!(before.loosened(&before, &called(&same)), []);
        let excluded = Hiding { excluded: true, ..now };
        prop_assert_eq!(before.loosened(&excluded, &called(&columns)), []);
    }

    #[test]
    fn every_column_that_gets_weaker_is_found(
        before in any_hiding(), now in any_hiding(), columns in any_columns()
    ) {
        let lost = before.loosened(&now, &called(&columns));
        let (was, is) = (before.rules(), now.rules());
        for (former, name) in columns {
            let is_weaker = Strength::of(&is, name) < Strength::of(&was, former);
            let is_told = lost.iter().any(|lost| {
                matches!(lost, Loosened::Column { former: of, .. } if of == former)
            });
            prop_assert_eq!(is_told, is_weaker, "{} {}", former, name);
        }
    }

    #[test]
    fn any_text_is_one_of_toml(text: String) {
        let document: toml_edit::DocumentMut = format!("a = {}", toml_text(&text)).parse().unwrap();
        prop_assert_eq!(document["a"].as_str(), Some(text.as_str()));
    }
}
