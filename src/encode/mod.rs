//! Records from changes.
