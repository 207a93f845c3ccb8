//! Tools for trying rowcast out: not part of what streams, and nothing that streams knows of them.
//!
//! `generate` writes rows for a database to try it on, `tail` shows what arrives in the topics, and
//! `demo` runs everything on one machine. A pipeline needs none of them.

pub mod demo;
pub mod generate;
pub mod tail;
