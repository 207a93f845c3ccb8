//! What may be confirmed.
