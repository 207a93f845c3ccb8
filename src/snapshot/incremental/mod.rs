//! Snapshots while the stream runs: of new tables, of requested rows, and of the rest of an
//! interrupted first snapshot.
//!
//! ```text
//! request -> noted in the checkpoint -> in the publication -> chunk, chunk, chunk -> done
//!                                               ^                 |
//!                                               +---- altered ----+
//! ```
//!
//! | file | what it does |
//! |---|---|
//! | `coordinator` | drives all of it; tables take turns |
//! | `task`, `tasks`, `requests` | one table's snapshot, all of them, and how a request becomes some |
//! | `connections`, `exported` | the connection that reads, and the slot whose snapshot pages are read by |
//! | `read_chunk`, `keyset`, `chunk`, `chunk_size` | reads a table by key, a chunk at a time |
//! | `read_pages`, `remaining_rows` | reads a table without a key by pages, while the stream waits |
//! | `orders` | hands chunks to the stream's thread, and their outcomes back |
//! | `watermark`, `window` | what makes a chunk exact: which of its rows changed meanwhile |
//! | `apply`, `apply_keyless`, `suppressed` | the stream's side: publishes rows at their watermark |
//! | `signaling` | requests that arrive in the stream |

mod apply_keyless;
pub(crate) mod connections;
mod exported;
mod interrupt;
mod read_chunk;
mod read_pages;
mod requests;
mod signaling;
mod suppressed;
mod task;
mod tasks;

pub(crate) mod apply;
pub(crate) mod chunk;
pub(crate) mod chunk_size;
pub(crate) mod coordinator;
pub(crate) mod keyset;
pub(crate) mod orders;
pub(crate) mod remaining_rows;
pub(crate) mod watermark;
pub(crate) mod window;
