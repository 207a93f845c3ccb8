//! From pgoutput messages to records: what a consumer sees of every kind of change.

mod fuzz;
mod records;
mod stream;
mod wire;
