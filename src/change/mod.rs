//! Row changes, assembled from messages.
