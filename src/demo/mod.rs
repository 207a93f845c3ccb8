//! Everything at once, on this machine.
