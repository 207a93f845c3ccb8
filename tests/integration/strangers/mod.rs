//! What somebody with few rights in the database, or on the machine, can make the bridge do: nothing.
//! Each test plays the attacker.

mod conditions;
mod endless;
mod paths;
mod signal_rows;
mod signal_table;
mod signals;
mod traps;
