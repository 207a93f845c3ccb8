//! Tests against real servers, in one binary so that they share them. One module a promise.
//!
//! `support` starts the servers; `harness` proves that it does, and that it leaves nothing behind.

mod application;
mod attacks;
mod catalog;
mod check;
mod churn;
mod ddl;
mod dead_letters;
mod defaults;
mod delivery;
mod exactly_once;
mod faults;
mod filters;
mod frozen;
mod generate;
mod guard;
mod harness;
mod identity;
mod inheritance;
mod insert_only;
mod json;
mod keys;
mod library;
mod line;
mod load;
mod login;
mod many_tables;
mod memory;
mod messages;
mod nulls;
mod one_topic;
mod oracle;
mod oversize;
mod partition_trees;
mod partitions;
mod postgres_19;
mod published;
mod reading;
mod reload;
mod renames;
mod scenario;
mod setup;
mod slot_guard;
mod snapshot;
mod strangers;
mod tail;
mod toast;
mod topics;
mod transactions;
mod types;

use rowcast_test_support as support;
