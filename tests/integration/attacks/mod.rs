//! Attacks on a running bridge, by those who may reach it and nothing more: the outcome is that
//! rows flow, nothing is given away, and memory stays within `memory` and what is documented.

mod local_users;
mod namesakes;
mod servers;
