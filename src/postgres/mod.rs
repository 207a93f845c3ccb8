//! The source: connections to Postgres.
