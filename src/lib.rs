//! Change data capture from Postgres to Kafka: row changes as keyed events, one topic a table.
//!
//! # The line a row follows
//!
//! ```text
//! postgres::stream -> pgoutput::decode -> change::assemble -> encode -> route -> kafka::producer
//!    WAL chunk (bytes)    Message<'_>        Change<'_>       Records   topic      librdkafka
//!         ^                                                                            |
//!         |  watch<Lsn>: one number is all that ever flows back                        v
//!         +----------------------- checkpoint::Ledger <-------- ack(Ticket) ---- kafka::delivery
//! ```
//!
//! The reader ([`postgres::stream`]) owns the socket on a thread of its own and answers the server
//! on time whatever Kafka does. The [`worker`] runs everything from the frame to the producer as
//! plain calls on another. Between them stands one channel, bounded in bytes. librdkafka's threads
//! compress and send; a delivery thread brings acknowledgements back to the [`checkpoint`]. The
//! [`bridge`] joins all this and decides, by [`error`], whether a failure is tried again.
//!
//! # What is promised
//!
//! - Postgres is told that it may forget a change only after the brokers acknowledged it.
//! - Changes of a key arrive in commit order, in one partition.
//! - After a crash the stream goes on behind the last [`checkpoint`]; what came after it and was
//!   published already is published again. With `delivery = "exactly-once"` records and checkpoint
//!   stand in one Kafka transaction, and nothing committed comes again.
//! - Memory is bounded in bytes, whatever the size of a transaction.
//!
//! # Modules, from the bottom up
//!
//! | layer | modules |
//! |---|---|
//! | 0, settings and numbers | [`lsn`], [`backoff`], [`metrics`], [`config`] |
//! | 1, pure | [`pgoutput`] ← [`types`] ← [`change`] ← [`encode`], [`route`]; [`checkpoint`] |
//! | 2, servers | [`postgres`], [`kafka`] ← [`snapshot`] ← [`admin`], [`generate`], [`tail`] |
//! | 3, wiring | [`error`], [`telemetry`], [`worker`], [`bridge`], [`demo`], [`cli`] |
//!
//! Imports only go down; `tests/layers.rs` holds that.
//!
//! # Where this differs from the plan it was built from, and why
//!
//! - `types` stands below `change`, and codecs are compiled in the encoder's plan of a relation
//!   instead of in the relation: which codec fits depends on the type profile, a matter of output.
//! - The stages between reader and producer are joined in [`worker`], a module of its own, so that
//!   [`bridge`] keeps only what talks to servers; the worker is then testable without any.
//! - `postgres::replication` holds the commands and [`postgres::stream`] the stream, because they
//!   share nothing but the connection.
//! - Acknowledgements reach the tracker through [`checkpoint::Ledger`] in batches: one lock per
//!   batch, not per record.
//! - One poll thread of our own hears deliveries, instead of `ThreadedProducer`'s, so that a batch
//!   can be closed when that thread runs out of reports.
//! - `linger.ms` is longer than a record ever waits, and a flush cuts it short whenever nothing more
//!   follows: once it is over for what is queued, librdkafka's thread spins while a batch is under
//!   way, which costs a small machine a core.
//! - TOML and YAML are read by our own reader into one tree with line numbers, and only then given
//!   to figment, which by itself stops at the first fault and knows no lines.
//!
//! # Words
//!
//! | word | meaning |
//! |---|---|
//! | relation | a table, as the protocol calls it |
//! | tuple | a row on the wire; a row is the same with its columns |
//! | change | one row change with its position |
//! | record | what goes to Kafka: key, value, headers |
//! | ticket | stands for a record until it is acknowledged |
//! | confirmed LSN | up to here Postgres may discard its WAL |
//! | checkpoint | the durable word of what is published, in a topic; not Postgres' CHECKPOINT |
//! | position | `(commit_lsn, ordinal)`, the only order of changes |
//! | drain | after the word to stop: finish the transaction, wait for acknowledgements, confirm |

pub mod admin;
mod allocation;
pub mod backoff;
pub mod bridge;
pub mod change;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod demo;
pub mod encode;
pub mod error;
mod failpoint;
pub mod generate;
pub mod kafka;
pub mod lsn;
pub mod metrics;
pub mod pgoutput;
pub mod postgres;
pub mod route;
pub mod snapshot;
pub mod tail;
pub mod telemetry;
pub mod types;
pub mod worker;
