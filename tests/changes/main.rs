//! From pgoutput messages to records: what a consumer sees of every kind of change.

mod copy;
mod dead_letters;
mod fuzz;
mod golden;
mod identity;
mod manual;
mod metadata;
mod oversize;
mod records;
mod roundtrip;
mod rules;
mod schema;
mod stream;
mod wire;
