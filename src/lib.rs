//! Change data capture from Postgres to Kafka: row changes as keyed events, one topic per table.
//!
//! # The path of a row
//!
//! ```text
//!                               once per relation: catalog, topic, encoder plan
//!                                                   |
//! postgres::stream -> pgoutput::decode -> change::assemble -> pipeline::publish -> pipeline::send
//!    WAL chunk          Message<'_>         Change<'_>       route, encode: Records       |
//!       ^                                                                          kafka::producer
//!       |                                                                          librdkafka
//!       |  confirmed LSN                                           delivery reports       |
//!       |  (a watch)                                                                      v
//!       +---- checkpoint::Ledger <--- ack <--- checkpoint record <--- pipeline::commit <-- checkpoint::Ledger
//! ```
//!
//! The reader (`postgres::stream`) owns the socket on a thread of its own and answers the server
//! on time, whatever Kafka does. The worker (`worker`) runs everything from the frame to the
//! producer as plain calls on another. One channel connects them, bounded in bytes. librdkafka's
//! threads compress and send. The way back takes two steps: acknowledgements of rows reach the
//! ledger of [`checkpoint`]; then a checkpoint is written through the same producer, and only its
//! acknowledgement moves the LSN that is confirmed to Postgres. The [`bridge`] connects all this
//! and decides, by [`error`], whether to try again after a failure.
//!
//! A row of a snapshot is a change like any other: [`snapshot`] reads it, and `pipeline` publishes it.
//!
//! # As a library
//!
//! ```
//! use rowcast::{Bridge, Config};
//!
//! let mut config = Config::default();
//! config.postgres.url = Some("postgres://localhost/taxi".to_owned().into());
//! config.kafka.brokers = Some("localhost:9092".to_owned());
//! // Checks the configuration; connects to nothing.
//! let bridge = Bridge::new(&config)?;
//! assert_eq!(bridge.settings().prefix, "taxi");
//!
//! // Streams until `stop` holds true, on a runtime of tokio with several threads.
//! let (stop, stopped) = tokio::sync::watch::channel(false);
//! let running = bridge.run(stopped);
//! # drop((stop, running));
//! # Ok::<(), rowcast::Error>(())
//! ```
//!
//! # What is promised, and which module keeps it
//!
//! | promise | kept by |
//! |---|---|
//! | Postgres may discard the WAL of a change only after the brokers acknowledged it | [`checkpoint::Ledger`], `pipeline::commit` |
//! | changes of a key arrive in commit order, in one partition | [`change`] assigns each its position, [`encode`] its key, `worker` runs on one thread |
//! | a restart goes on behind the last checkpoint | [`checkpoint::decide`] |
//! | with `delivery = "exactly-once"`, nothing committed comes again: records and checkpoint are in one Kafka transaction | `pipeline::commit`, `pipeline::cadence` |
//! | a row is in the topic as the database has it, snapshot or stream | [`pgoutput`], [`types`], [`encode`]; `snapshot::incremental::window` for what changes while it is read |
//! | memory is bounded in bytes, whatever the size of a transaction | `postgres::chunks`, `kafka::queue_budget` |
//! | a failure is retried, or ends with its cause and its fix | [`error`], [`bridge`] |
//!
//! # Modules, from the bottom up
//!
//! | layer | modules |
//! |---|---|
//! | 0, settings and numbers | [`lsn`], [`backoff`], [`metrics`], [`config`] |
//! | 1, pure | [`pgoutput`] ← [`types`] ← [`change`] ← [`encode`], [`route`]; [`checkpoint`] |
//! | 2, servers | `postgres`, `kafka` ← `snapshot` ← [`state`] ← `admin` |
//! | 3, the way of a change | [`error`], `telemetry` ← `pipeline` ← `snapshot::initial`, `snapshot::incremental` ← `worker` |
//! | 4, wiring | [`bridge`] ← `tools` (`generate`, `tail`, `demo`: for trying it out) ← `cli` |
//!
//! Imports only go down; `tests/layers.rs` holds that. What is linked here is the library's face, and
//! grows with care; the other modules are public only as far as rowcast's own tests, benches and binary
//! need them, and are no API.
//!
//! # Design decisions
//!
//! - `types` is below `change`, and codecs are compiled in the encoder's plan of a relation instead
//!   of in the relation: which codec fits depends on the type profile, a matter of output.
//! - The stream's loop is a module of its own (`worker`), so that [`bridge`] keeps only what talks to
//!   servers; the worker is then testable without any.
//! - `postgres::replication` holds the commands and `postgres::stream` the stream, because they
//!   share nothing but the connection.
//! - Acknowledgements reach the tracker through [`checkpoint::Ledger`] in batches: one lock per
//!   batch, not per record.
//! - Our own poll thread receives delivery reports, instead of `ThreadedProducer`'s, so that a
//!   batch can be closed when that thread has no more reports.
//! - `linger.ms` is longer than a record ever waits, and a flush ends it early whenever no record
//!   follows: once it has passed for queued records, librdkafka's thread spins while a batch is
//!   being sent, which costs a small machine a core.
//! - TOML and YAML are read by our own reader into one tree with line numbers, and only then passed
//!   to figment, which alone would stop at the first fault and has no line numbers.
//!
//! # Words
//!
//! | word | meaning |
//! |---|---|
//! | relation | a table, as the protocol calls it |
//! | tuple | a row on the wire; a row is the same with its columns |
//! | change | one row change with its position |
//! | record | what goes to Kafka: key, value, headers |
//! | ticket | represents a record until it is acknowledged |
//! | confirmed LSN | Postgres may discard its WAL up to this position |
//! | checkpoint | the durable statement of what is published, in a topic; not Postgres' CHECKPOINT |
//! | position | `(commit_lsn, ordinal)`, the only order of changes |
//! | drain | after a request to stop: finish the transaction, wait for acknowledgements, confirm |

#[doc(hidden)]
pub mod admin;
mod allocation;
pub mod backoff;
pub mod bridge;
pub mod change;
#[doc(hidden)]
pub mod check;
pub mod checkpoint;
#[doc(hidden)]
pub mod cli;
mod clock;
pub mod config;
pub mod encode;
pub mod error;
mod failpoint;
mod few;
#[doc(hidden)]
pub mod kafka;
pub mod lsn;
pub mod metrics;
pub mod pgoutput;
mod pipeline;
#[doc(hidden)]
pub mod postgres;
pub mod route;
#[doc(hidden)]
pub mod snapshot;
pub mod state;
#[doc(hidden)]
pub mod telemetry;
#[doc(hidden)]
pub mod tools;
pub mod types;
mod worker;

pub use crate::bridge::Bridge;
pub use crate::config::Config;
pub use crate::error::Error;
pub use crate::state::State;
