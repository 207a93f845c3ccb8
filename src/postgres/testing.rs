//! A private server for tests.
