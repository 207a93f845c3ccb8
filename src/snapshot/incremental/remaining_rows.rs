//! SQL conditions for the remaining rows of a table of which some pages were published as one
//! snapshot showed them.
//!
//! A row that is not changed stays in its place, and has the ID of the transaction that wrote it
//! (`xmin`). So two things are known of an existing row: whether the snapshot showed it, by the
//! transaction, and whether it was published, by the page. Both are valid as long as the table has
//! the same file.
//!
//! | the row was written | its page is | it is published |
//! |---|---|---|
//! | before the snapshot | published | not again |
//! | before the snapshot | not published | from the table |
//! | since | any | from the stream |
//!
//! With a key it does no harm to read a row twice, so the condition is only approximate.
//!
//! Transactions are compared by age, because their IDs wrap around. A frozen row keeps its
//! transaction ID, so one that is older than half the range appears to be in the future: no row is,
//! so it is an old one.
//!
//! They may be combined with a user's condition, under the role's own `search_path`, so each
//! operator and type is schema-qualified.

use crate::checkpoint::{LeafProgress, PageProgress};
use crate::snapshot::visibility::Visibility;

/// The condition for the rows of a table with a key that were not published with the pages; `None`
/// if no page was.
///
/// It may include rows that were written since: one that an update moved into such a page, whose
/// event may lack large values.
#[must_use]
pub(crate) fn missing_rows(pages: &PageProgress) -> Option<String> {
    let read = |leaf: &LeafProgress| {
        let ranges = leaf.done.iter().map(|(from, to)| {
            format!(
                "ctid OPERATOR(pg_catalog.>=) '({from},0)'::pg_catalog.tid AND \
                     ctid OPERATOR(pg_catalog.<) '({to},0)'::pg_catalog.tid"
            )
        });
        let ranges: Vec<String> = ranges.collect();
        format!(
            "tableoid OPERATOR(pg_catalog.=) {}::pg_catalog.oid AND \
             pg_catalog.pg_relation_filenode(tableoid) OPERATOR(pg_catalog.=) {}::pg_catalog.oid \
             AND ({})",
            leaf.oid,
            leaf.filenode,
            ranges.join(" OR ")
        )
    };
    let begun = pages.leaves.iter().filter(|leaf| !leaf.done.is_empty());
    let read: Vec<String> = begun.map(|leaf| format!("({})", read(leaf))).collect();
    if read.is_empty() {
        return None;
    }
    // With an unreadable snapshot no row is known to be old.
    let xmin = Visibility::parse(&pages.shows).map_or(0, |shows| lower_half(shows.xmin));
    Some(format!(
        "NOT ({}) OR pg_catalog.age(xmin) OPERATOR(pg_catalog.<=) \
         pg_catalog.age('{xmin}'::pg_catalog.xid)",
        read.join(" OR ")
    ))
}

/// The condition for the rows that a snapshot shows and that have not changed since. It must be a
/// slot's snapshot, which includes subtransactions.
///
/// A slot advances `xmin` by running transactions and `xmax` by commits: `xmin` may exceed `xmax`,
/// and then it alone decides.
#[must_use]
pub fn shown_rows(shows: &Visibility) -> String {
    let since = format!(
        "pg_catalog.age(xmin) OPERATOR(pg_catalog.>=) 0 AND pg_catalog.age(xmin) \
         OPERATOR(pg_catalog.<=) pg_catalog.age('{}'::pg_catalog.xid)",
        lower_half(shows.xmax.max(shows.xmin))
    );
    if shows.in_progress.is_empty() {
        return format!("NOT ({since})");
    }
    let ran: Vec<String> =
        shows.in_progress.iter().map(|xid| lower_half(*xid).to_string()).collect();
    let ran = ran.join(",");
    format!("NOT ({since} OR xmin OPERATOR(pg_catalog.=) ANY ('{{{ran}}}'::pg_catalog._xid))")
}

const fn lower_half(xid: u64) -> u64 {
    xid & 0xFFFF_FFFF
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_what_stands_elsewhere_or_was_written_since() {
        let leaf =
            |oid, done: &[(u32, u32)]| LeafProgress { oid, filenode: 9, done: done.to_vec() };
        let shows = format!("{}:{}:", (1_u64 << 32) + 7, (1_u64 << 32) + 9);
        let mut pages = PageProgress { shows, ..PageProgress::default() };
        pages.leaves = vec![leaf(5, &[]), leaf(6, &[(0, 2), (4, 5)])];
        assert_eq!(
            missing_rows(&pages).unwrap(),
            "NOT ((tableoid OPERATOR(pg_catalog.=) 6::pg_catalog.oid AND \
             pg_catalog.pg_relation_filenode(tableoid) OPERATOR(pg_catalog.=) 9::pg_catalog.oid AND \
             (ctid OPERATOR(pg_catalog.>=) '(0,0)'::pg_catalog.tid AND \
             ctid OPERATOR(pg_catalog.<) '(2,0)'::pg_catalog.tid OR \
             ctid OPERATOR(pg_catalog.>=) '(4,0)'::pg_catalog.tid AND \
             ctid OPERATOR(pg_catalog.<) '(5,0)'::pg_catalog.tid))) OR pg_catalog.age(xmin) \
             OPERATOR(pg_catalog.<=) pg_catalog.age('7'::pg_catalog.xid)"
        );
        pages.leaves.pop();
        assert_eq!(missing_rows(&pages), None);
    }

    #[test]
    fn rows_are_shown_that_neither_those_who_ran_nor_any_after_the_snapshot_wrote() {
        let epoch = 1_u64 << 32;
        let until = |xid: u32| {
            format!(
                "pg_catalog.age(xmin) OPERATOR(pg_catalog.>=) 0 AND pg_catalog.age(xmin) \
                 OPERATOR(pg_catalog.<=) pg_catalog.age('{xid}'::pg_catalog.xid)"
            )
        };
        let shows = Visibility::parse(&format!("{}:{}:", epoch + 7, epoch + 9)).unwrap();
        assert_eq!(shown_rows(&shows), format!("NOT ({})", until(9)));
        // No committed transaction is as young as the oldest running one.
        let shows = Visibility::parse("9:7:").unwrap();
        assert_eq!(shown_rows(&shows), format!("NOT ({})", until(9)));
        // The IDs wrap around in between.
        let (last, next) = (epoch - 1, epoch + 4);
        let shows = Visibility::parse(&format!("{last}:{next}:{last},{}", next - 1)).unwrap();
        assert_eq!(
            shown_rows(&shows),
            format!(
                "NOT ({} OR xmin OPERATOR(pg_catalog.=) ANY ('{{4294967295,3}}'::pg_catalog._xid))",
                until(4)
            )
        );
    }
}
