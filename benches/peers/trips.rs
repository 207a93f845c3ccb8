//! The table that the snapshot bench publishes, by the names that all contestants know.

pub(crate) const TABLE: &str = "trips";
pub(crate) const PUBLICATION: &str = "pub_trips";
