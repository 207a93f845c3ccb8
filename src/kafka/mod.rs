//! The sink.
