//! Ranges of a file's pages: how a file is divided into them, and which of them are done.
//!
//! Pure. Every page is in exactly one range; the last range has no end, as the file may have grown.
//! What is done is kept in as few ranges as possible, because it is in every checkpoint.

use std::cmp::max;

/// The end of a range that has none. No file has so many pages.
pub const END: u32 = u32::MAX;

/// Bytes of a range: some ten thousand rows, read in a fraction of a second, so that all
/// connections end together and little is read twice after a failure.
pub const RANGE_BYTES: u32 = 2 * 1024 * 1024;

/// Bytes of a page, unless the server was built otherwise, which only makes ranges larger.
pub const PAGE_BYTES: u32 = 8192;

/// Pages, from the first to before the last number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageRange {
    /// The first page.
    pub from: u32,
    /// The page after the last; [`END`] for all that follow.
    pub to: u32,
}

/// Divides a file of `pages` pages into ranges of `step` pages, the last of them without an end. A
/// file without pages is one range, because it may grow.
pub fn ranges(pages: u32, step: u32) -> impl Iterator<Item = PageRange> + Clone {
    let step = step.max(1);
    let count = pages.div_ceil(step).max(1);
    (0..count).map(move |at| {
        let from = at * step;
        let to = if at + 1 == count { END } else { from + step };
        PageRange { from, to }
    })
}

/// Pages that are done, in as few ranges as possible.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DonePages {
    /// Ascending, apart from each other, none empty.
    ranges: Vec<(u32, u32)>,
}

impl From<Vec<(u32, u32)>> for DonePages {
    /// Takes ranges in any order, as a checkpoint may have them.
    fn from(ranges: Vec<(u32, u32)>) -> Self {
        let mut done = Self::default();
        for (from, to) in ranges {
            done.insert(PageRange { from, to });
        }
        done
    }
}

impl DonePages {
    /// Adds a range.
    pub fn insert(&mut self, PageRange { mut from, mut to }: PageRange) {
        if from >= to {
            return;
        }
        let start = self.ranges.partition_point(|&(_, end)| end < from);
        let end = self.ranges.partition_point(|&(begin, _)| begin <= to);
        if let Some(touched) = self.ranges.get(start..end)
            && let (Some(first), Some(last)) = (touched.first(), touched.last())
        {
            from = from.min(first.0);
            to = max(to, last.1);
        }
        self.ranges.splice(start..end, [(from, to)]);
    }

    /// The ranges, for a checkpoint: ascending and apart.
    #[must_use]
    pub fn as_slice(&self) -> &[(u32, u32)] {
        &self.ranges
    }

    /// The next pages to read of a file that has `pages`, at most `step` at a time; `None` if all
    /// are done.
    #[must_use]
    pub fn next(&self, pages: u32, step: u32) -> Option<PageRange> {
        let PageRange { from, to } = *self.missing().first()?;
        let end = from.saturating_add(step.max(1));
        // Pages after the last known one are read with it.
        Some(PageRange { from, to: if end >= pages { to } else { end.min(to) } })
    }

    /// How many of `pages` pages are done.
    #[must_use]
    pub fn count(&self, pages: u32) -> u64 {
        let ranges = self.ranges.iter();
        ranges.map(|&(from, to)| u64::from(to.min(pages).saturating_sub(from))).sum()
    }

    /// The pages that are not done, ascending; the last range has no end unless it is done.
    #[must_use]
    pub fn missing(&self) -> Vec<PageRange> {
        let mut missing = Vec::new();
        let mut from = 0;
        for &(begin, end) in &self.ranges {
            if from < begin {
                missing.push(PageRange { from, to: begin });
            }
            from = end;
        }
        if from < END {
            missing.push(PageRange { from, to: END });
        }
        missing
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_page_is_in_exactly_one_range(pages in 0_u32..5000, step in 0_u32..700) {
            let ranges: Vec<PageRange> = ranges(pages, step).collect();
            prop_assert_eq!(ranges[0].from, 0);
            prop_assert_eq!(ranges[ranges.len() - 1].to, END);
            for pair in ranges.windows(2) {
                prop_assert_eq!(pair[0].to, pair[1].from);
                prop_assert_eq!(pair[0].to - pair[0].from, step.max(1));
            }
            // There is no range for pages that are not done.
            prop_assert!(ranges.len() == 1 || ranges[ranges.len() - 1].from < pages);
        }

        #[test]
        fn what_is_done_is_what_was_added_in_as_few_ranges_as_can_be(
            added in prop::collection::vec((0_u32..40, 0_u32..45), 0..20),
        ) {
            let mut done = DonePages::default();
            let mut model = BTreeSet::new();
            for &(from, to) in &added {
                done.insert(PageRange { from, to });
                model.extend(from..to);
            }
            let pages = |ranges: &[(u32, u32)]| -> BTreeSet<u32> {
                ranges.iter().flat_map(|&(from, to)| from..to).collect()
            };
            prop_assert_eq!(pages(done.as_slice()), model.clone());
            for pair in done.as_slice().windows(2) {
                prop_assert!(pair[0].1 < pair[1].0, "{:?} should be one", pair);
            }
            prop_assert!(done.as_slice().iter().all(|(from, to)| from < to));
            let mut backwards = added;
            backwards.reverse();
            prop_assert_eq!(&DonePages::from(backwards), &done);

            let missing = done.missing();
            prop_assert_eq!(missing.last().map(|range| range.to), Some(END));
            let missing: BTreeSet<u32> =
                missing.iter().flat_map(|range| range.from..range.to.min(50)).collect();
            let expected: BTreeSet<u32> = (0..50).filter(|page| !model.contains(page)).collect();
            prop_assert_eq!(missing, expected);
        }
    }

    proptest! {
        #[test]
        fn what_is_read_step_by_step_is_all_that_was_missing_and_nothing_twice(
            added in prop::collection::vec((0_u32..40, 0_u32..45), 0..8),
            pages in 0_u32..50,
            step in 0_u32..9,
        ) {
            let mut done = DonePages::from(added);
            let mut left: BTreeSet<u32> =
                done.missing().iter().flat_map(|range| range.from..range.to.min(60)).collect();
            let mut reads = 0;
            while let Some(range) = done.next(pages, step) {
                prop_assert!(range.to.min(pages).saturating_sub(range.from) <= step.max(1));
                for page in range.from..range.to.min(60) {
                    prop_assert!(left.remove(&page), "page {} is read again", page);
                }
                done.insert(range);
                reads += 1;
            }
            prop_assert_eq!(left.len(), 0);
            prop_assert_eq!(done.as_slice(), [(0, END)]);
            prop_assert!(reads <= pages + 10, "there is no range for pages that are not done");
            prop_assert_eq!(done.count(pages), u64::from(pages));
        }
    }

    #[test]
    fn the_largest_file_is_divided_and_a_whole_one_has_nothing_missing() {
        let last = ranges(END - 1, 256).last().unwrap();
        assert_eq!((last.from % 256, last.to), (0, END));
        let mut done = DonePages::default();
        for range in ranges(1000, 300) {
            done.insert(range);
        }
        assert_eq!(done.as_slice(), [(0, END)]);
        assert_eq!(done.missing(), []);
    }
}
