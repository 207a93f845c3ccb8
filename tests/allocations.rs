//! The hot path allocates nothing per row once its buffers are warm.
//!
//! A binary of its own, for the counting allocator counts everything in the process.

#![expect(unsafe_code, reason = "a global allocator cannot be written without")]

#[path = "changes/wire.rs"]
#[allow(dead_code, reason = "this test needs a few of its messages")]
mod wire;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use rowcast::change::{Assembler, KeyChoice, RelationFacts, Step};
use rowcast::config::{Format, ValueFormat};
use rowcast::encode::{EncodeOptions, Encoder, Records, SourceIdentity};
use rowcast::lsn::Lsn;
use rowcast::pgoutput::{Message, decode};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged; the count is a plain cell without a
// destructor, so that touching it cannot allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of `rows` messages sent through decode, assemble and encode, after some to warm up.
fn allocations(format: &Format, relation: &[u8], row: &[u8]) -> u64 {
    let source = SourceIdentity::default();
    let mut encoder = Encoder::new(&EncodeOptions { format, source });
    let mut assembler = Assembler::new(None);
    let Message::Relation(body) = decode(relation).unwrap() else { panic!("not a relation") };
    let facts = RelationFacts::default();
    assembler.relations.insert(&body, facts, &KeyChoice::default()).unwrap();
    let begin = wire::begin(500, 0, 771);
    assembler.apply(decode(&begin).unwrap(), Lsn::ZERO).unwrap();
    let mut records = Records::default();
    let mut before = 0;
    for number in 0..1_000 {
        if number == 10 {
            before = ALLOCATIONS.with(Cell::get);
        }
        let step = assembler.apply(decode(row).unwrap(), Lsn::from(400)).unwrap();
        let Step::Change(change) = step else { panic!("not a change") };
        encoder.encode(&change, 1, &mut records).unwrap();
        assert!(!records.is_empty());
    }
    ALLOCATIONS.with(Cell::get) - before
}

#[test]
fn no_row_allocates_once_the_buffers_are_warm() {
    let before = ALLOCATIONS.with(Cell::get);
    drop(std::hint::black_box(vec![0_u8; 64]));
    assert!(ALLOCATIONS.with(Cell::get) > before, "the counter counts");

    let (taxi, insert) = wire::taxi(42);
    let columns = [(true, "id", 20), (true, "doc", 3802), (true, "tags", 1009), (true, "raw", 17)];
    let nested = wire::relation(7, "nested", b'f', &columns);
    let values = |id: &str| {
        let doc = wire::text("{\"a\": [1, {\"b\": \"\\n\"}]}");
        [wire::text(id), doc, wire::text("{a,\"b \\\"c\"}"), wire::text("\\x00ff")]
    };
    let update =
        wire::row(b'U', 7, &[wire::tuple(b'O', &values("1")), wire::tuple(b'N', &values("2"))]);
    for value in [ValueFormat::Debezium, ValueFormat::CloudEvents, ValueFormat::Flat] {
        let format = Format {
            value,
            flat_metadata: true,
            position_headers: true,
            transaction_metadata: true,
            context_headers: Some(true),
            ..Format::default()
        };
        assert_eq!(allocations(&format, &taxi, &insert), 0, "inserts as {value:?}");
        assert_eq!(allocations(&format, &nested, &update), 0, "updates as {value:?}");
    }
}
