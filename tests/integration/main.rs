//! Tests against real servers, in one binary so that they share them. One module a promise.
//!
//! `support` starts the servers; `harness` proves that it does, and that it leaves nothing behind.

#[path = "../support/mod.rs"]
mod support;

mod catalog;
mod delivery;
mod filters;
mod generate;
mod harness;
mod load;
mod setup;
mod tail;
mod topics;
mod transactions;
