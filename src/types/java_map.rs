//! The iteration order of Java's `HashMap`, which shows in Debezium's events.
//!
//! Entries lie in buckets by their hash, and in a bucket in the order they came. There are at least
//! as many buckets as make the map at most three quarters full, in powers of two. Not modelled: the
//! trees that more than eight entries of one bucket become, whose order differs in rare cases.

/// Where an entry comes out among the others: sort by it, then by the order they came in.
pub(super) const fn bucket(hash: u32, buckets: u32) -> u32 {
    (hash ^ hash >> 16) & (buckets - 1)
}

/// Buckets of a map created for `room` entries that holds `entries`. A map created without a
/// capacity has space for twelve.
pub(super) const fn buckets(room: u32, entries: u32) -> u32 {
    let mut buckets = room.next_power_of_two();
    while entries > buckets / 4 * 3 + buckets % 4 * 3 / 4 {
        buckets *= 2;
    }
    buckets
}

/// `String.hashCode`, over the text's UTF-16.
pub(super) fn hash_of_text(text: &str) -> u32 {
    let units = text.encode_utf16();
    units.fold(0, |hash: u32, unit| hash.wrapping_mul(31).wrapping_add(u32::from(unit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_javas() {
        for (text, hash) in
            [("", 0), ("a", 97), ("hello", 99_162_322), ("é", 233), ("\u{1F600}", 1_772_899)]
        {
            assert_eq!(hash_of_text(text), hash, "{text}");
        }
    }

    #[test]
    fn a_map_grows_when_it_is_three_quarters_full() {
        for (room, entries, expected) in
            [(16, 0, 16), (16, 12, 16), (16, 13, 32), (1, 1, 2), (2, 2, 4), (4, 3, 4), (5, 5, 8)]
        {
            assert_eq!(buckets(room, entries), expected, "{room} {entries}");
        }
    }
}
