//! One pgoutput message of any bytes: read to its last value, or refused.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rowcast::pgoutput::{Message, OldTuple, decode};

fuzz_target!(|bytes: &[u8]| {
    let Ok(message) = decode(bytes) else { return };
    let mut tuples = Vec::new();
    match message {
        Message::Relation(body) => {
            assert_eq!(body.columns.iter().count(), body.columns.len());
        }
        Message::Insert { new, .. } => tuples.push(new),
        Message::Update { old, new, .. } => {
            tuples.extend(old.map(OldTuple::tuple));
            tuples.push(new);
        }
        Message::Delete { old, .. } => tuples.push(old.tuple()),
        Message::Truncate(truncate) => {
            assert!(truncate.relations.iter().count() * 4 < bytes.len());
        }
        _ => {}
    }
    for tuple in tuples {
        assert_eq!(tuple.iter().count(), tuple.len());
    }
    // What may end in a log.
    let _ = format!("{message:?}");
});
