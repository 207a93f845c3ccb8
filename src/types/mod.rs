//! Column codecs by type.
