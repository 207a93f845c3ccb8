//! Events, printed as they arrive.
