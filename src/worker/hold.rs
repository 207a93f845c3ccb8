//! Tables that nothing tells the rows of apart: read whole, while the stream waits.
//!
//! ```text
//! stream   ... watermark | waits ............................ | goes on, without what is in the rows
//! reader                   slot at C2, its snapshot, all rows
//! ```
//!
//! The rows are those of the point C2, where a slot was made after the stream had come to a stop. So
//! every change of the table from before C2 is in them, and is left out; and every change from C2 on
//! follows them. What holds after the table (that its snapshot is over) holds from C2 on, so that
//! whoever is cut off before reads it again.
//!
//! With exactly-once the rows and that word stand in one Kafka transaction, as long as it may hold
//! them; of a larger table rows may come twice, if the process dies while they are read.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::error::TryRecvError;

use super::left_out::Read;
use super::window::{Heard, announced};
use super::{Halt, Lookup, Worker};
use crate::kafka::Sink;
use crate::snapshot::exchange::{Hold, Rows};
use crate::snapshot::{Closed, Spoiled};

/// How often the reader is looked for while the stream waits.
const LOOK: Duration = Duration::from_millis(5);

impl<S: Sink, L: Lookup> Worker<S, L> {
    /// Publishes what the reader brings, until it has brought all.
    pub(super) fn hold(
        &mut self,
        number: u64,
        hold: Hold,
        heard: &Heard,
    ) -> Result<Result<(), Spoiled>, Halt> {
        let Hold { oid, entered, mut rows, edits } = hold;
        // Nobody listens where the reader has gone: then it brings nothing either.
        let _ = entered.send(());
        let mut closed = Closed::default();
        let mut position = heard.position();
        loop {
            if self.out.stop.is_asked() {
                return Err(Halt::Stopped);
            }
            match rows.try_recv() {
                Ok(Rows::Some(chunk)) => {
                    let Self { assembler, publisher, out, windows } = self;
                    let Some(windows) = windows else { return Ok(Err(Spoiled::CutOff)) };
                    let relation = announced(publisher, &assembler.relations, &chunk)?;
                    for line in chunk.lines() {
                        let row = windows.reader.read(line, &relation)?;
                        heard.publish_row(
                            (publisher, out),
                            &relation,
                            (row, chunk.time_us),
                            position,
                        )?;
                        position.ordinal += 1;
                        closed.published += 1;
                    }
                    out.commit_what_is_too_much()?;
                    if let Some(known) = assembler.relations.by_oid(oid)
                        && !Arc::ptr_eq(known, &relation)
                    {
                        publisher.announce(known, Some(&relation))?;
                    }
                }
                Ok(Rows::All { point }) => {
                    if let Some(windows) = &mut self.windows {
                        windows.left_out.read_as_of(point, Read { oid, number, edits, closed });
                    }
                    return Ok(Ok(()));
                }
                Err(TryRecvError::Empty) => std::thread::sleep(LOOK),
                Err(TryRecvError::Disconnected) => {
                    if closed.published > 0 && self.out.checkpoints.is_transactional() {
                        tracing::warn!("a table was read in part: the session begins anew");
                        // What was published of it is aborted with the session, and comes again.
                        return Err(Halt::Failed(crate::postgres::Error::Closed.into()));
                    }
                    return Ok(Err(Spoiled::CutOff));
                }
            }
        }
    }
}
