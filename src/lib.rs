//! Change data capture from Postgres to Kafka.
//!
//! ```text
//! postgres::replication -> pgoutput::decode -> change::assemble -> encode -> route -> kafka::producer
//!      WAL chunk (bytes)      Message<'_>         Change<'_>       Record    topic     librdkafka
//!           ^                                                                              |
//!           |  watch<Lsn>: one number is all that ever flows back                          v
//!           +--------------------------- checkpoint::tracker <------- ack(Ticket) ---- kafka::delivery
//! ```

pub mod admin;
pub mod backoff;
pub mod bridge;
pub mod change;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod demo;
pub mod encode;
pub mod error;
pub mod generate;
pub mod kafka;
pub mod lsn;
pub mod metrics;
pub mod pgoutput;
pub mod postgres;
pub mod route;
pub mod tail;
pub mod telemetry;
pub mod types;
pub mod worker;
