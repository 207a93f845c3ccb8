//! What is left to read of a table whose snapshot was cut off.

use super::*;
use crate::checkpoint::LeafProgress;

#[test]
fn what_is_left_of_a_table_is_no_condition_that_a_user_asked_for() {
    let leaf = LeafProgress { oid: 5, filenode: 9, done: vec![(0, 2)] };
    let pages = |leaves| TableProgress::Pages(PageProgress { leaves, ..PageProgress::default() });
    let cut_off = |condition: Option<&str>, leaves| TableSnapshot {
        partition: None,
        id: "first".to_owned(),
        schema: "public".to_owned(),
        table: "rides".to_owned(),
        reason: SnapshotReason::First,
        condition: condition.map(str::to_owned),
        is_paused: false,
        progress: pages(leaves),
    };
    for condition in [None, Some("fare > 5")] {
        let left = what_is_missing(cut_off(condition, vec![leaf.clone()]));
        assert_eq!(left.condition.as_deref(), condition);
        let TableProgress::Keys(keys) = left.progress else { panic!("by keys") };
        assert!(
            keys.missing
                .is_some_and(|missing| missing.contains("tableoid OPERATOR(pg_catalog.=) 5"))
        );
        let none = what_is_missing(cut_off(condition, Vec::new()));
        assert_eq!((none.condition.as_deref(), none.progress), (condition, TableProgress::Waiting));
    }
}
