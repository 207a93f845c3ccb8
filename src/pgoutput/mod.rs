//! The pgoutput protocol, decoded.
