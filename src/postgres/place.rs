//! Tracks the stream's position, to add it to the server's errors.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::lsn::Lsn;

/// Bytes of an XLogData message before pgoutput's data: a tag and three numbers.
const DATA_AT: usize = 25;

/// The last position that the server sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamPlace {
    /// Where in the WAL the last message of pgoutput's comes from; before the first, where the stream starts.
    pub last: Lsn,
    /// The commit position of the open transaction.
    pub commit: Option<Lsn>,
}

impl StreamPlace {
    /// Records the payload of a CopyData message.
    #[inline]
    pub(super) fn see(&mut self, payload: &[u8]) {
        if payload.first() != Some(&b'w') {
            return;
        }
        let number = |at: usize| {
            let bytes = payload.get(at..)?.first_chunk()?;
            Some(Lsn::from(u64::from_be_bytes(*bytes)))
        };
        if let Some(last) = number(1).filter(|last| *last > Lsn::ZERO) {
            self.last = last;
        }
        match payload.get(DATA_AT) {
            Some(b'B') => self.commit = number(DATA_AT + 1),
            Some(b'C') => self.commit = None,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(at: u64, data: &[u8]) -> Vec<u8> {
        let numbers = [at, 9, 9].map(u64::to_be_bytes);
        [b"w".as_slice(), numbers.concat().as_slice(), data].concat()
    }

    #[test]
    fn the_transaction_that_is_open_is_known_with_its_commit() {
        let mut place = StreamPlace::default();
        let begin = [b"B".as_slice(), &77_u64.to_be_bytes(), &[0; 12]].concat();
        place.see(&message(70, &begin));
        place.see(&message(72, b"I..."));
        place.see(b"k12345678123456780");
        assert_eq!(place, StreamPlace { last: Lsn::from(72), commit: Some(Lsn::from(77)) });
        place.see(&message(77, b"C..."));
        assert_eq!(place, StreamPlace { last: Lsn::from(77), commit: None });
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(payload: Vec<u8>) {
            StreamPlace::default().see(&payload);
        }
    }
}
