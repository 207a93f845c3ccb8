//! Which columns the server is asked for.

use proptest::prelude::*;

use super::*;
use crate::config::{Table, TableSettings};

fn owned(list: &[&str]) -> Vec<String> {
    list.iter().map(|&text| text.to_owned()).collect()
}

fn facts(identity: &[&str], is_full: bool) -> TableFacts {
    TableFacts {
        columns: owned(&["id", "name", "ssn", "card"]),
        key: owned(&["id"]),
        is_full,
        identity: owned(identity),
        common_identity: owned(identity),
    }
}

fn without(excluded: &[&str]) -> ColumnRules {
    let table = Table { exclude_columns: Some(owned(excluded)), ..Table::default() };
    let tables = [("*.*".to_owned(), table)].into_iter().collect();
    TableSettings::parse(&tables).unwrap().columns("a", "b").cloned().unwrap_or_default()
}

#[test]
fn a_list_holds_the_identity_and_the_key_whatever_is_excluded() {
    let list = |excluded: &[&str], identity: &[&str], key: &[&str], needed: bool| {
        column_list(&facts(identity, false), &without(excluded), &owned(key), needed)
    };
    let some = |columns: &[&str]| ColumnList::Some(owned(columns));
    assert_eq!(list(&["ssn"], &["id"], &[], true), some(&["id", "name", "card"]));
    assert_eq!(list(&["ssn", "id"], &["id"], &[], true), some(&["id", "name", "card"]));
    assert_eq!(list(&["ssn", "card"], &["card"], &[], true), some(&["id", "name", "card"]));
    assert_eq!(list(&["ssn", "card"], &["card"], &[], false), some(&["id", "name"]));
    assert_eq!(list(&["ssn", "card"], &["id"], &["ssn"], true), some(&["id", "name", "ssn"]));
    assert_eq!(list(&["ssn"], &["id"], &["ssn"], true), ColumnList::All);
    assert_eq!(list(&["x*"], &["id"], &[], true), ColumnList::All);
    assert_eq!(list(&["*"], &["id"], &[], true), ColumnList::Nothing);
}

#[test]
fn full_old_rows_leave_the_dropping_to_the_bridge() {
    let full = facts(&["id", "name", "ssn", "card"], true);
    assert_eq!(column_list(&full, &without(&["ssn"]), &[], true), ColumnList::InBridge);
    let inserts_alone = column_list(&full, &without(&["ssn"]), &[], false);
    assert_eq!(inserts_alone, ColumnList::Some(owned(&["id", "name", "card"])));
}

proptest! {
    #[test]
    fn postgres_would_refuse_no_list(
        excluded in proptest::sample::subsequence(vec!["id", "name", "ssn", "card"], 0..4),
        identity in proptest::sample::subsequence(vec!["id", "name", "ssn", "card"], 0..4),
        key in proptest::sample::subsequence(vec!["id", "name", "ssn", "card"], 0..4),
    ) {
        let facts = facts(&identity, false);
        let filter = without(&excluded);
        match column_list(&facts, &filter, &owned(&key), true) {
            ColumnList::Some(list) => {
                prop_assert!(identity.iter().chain(&key).all(|c| list.contains(&(*c).to_owned())));
                let wanted = facts.columns.iter().filter(|c| filter.publishes(c));
                prop_assert!(wanted.into_iter().all(|column| list.contains(column)));
                prop_assert!(list.len() < facts.columns.len());
                let in_order: Vec<_> =
                    facts.columns.iter().filter(|c| list.contains(c)).cloned().collect();
                prop_assert_eq!(list, in_order);
            }
            ColumnList::All => {}
            other => prop_assert!(false, "{other:?}"),
        }
    }
}
