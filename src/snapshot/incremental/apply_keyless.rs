//! The stream's side of tables without a key: some pages are read while the stream waits, so that
//! no change can come in between.
//!
//! ```text
//! stream   ... watermark | waits ......................... | continues ... watermark | waits ...
//! reader                   reads, and hands over rows                                 more
//! ```
//!
//! Every change that comes after a watermark in the stream follows the rows that are published
//! there, and every earlier change is in those rows, because the reader reads after the stream has
//! stopped. A commit that is in the WAL but not visible yet would be an exception, so it is checked
//! for (`snapshot::visibility`), and the pages are read again.
//!
//! Rows and the note of their pages are in one transaction, so with exactly-once in one Kafka
//! transaction, if they fit.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::error::TryRecvError;

use super::apply::{Heard, Windows};
use super::orders::{Brought, Hold};
use crate::error::Error;
use crate::kafka::Sink;
use crate::pipeline::{Halt, Lookup, Stage};
use crate::snapshot::{Chunk, Closed, Mark, Spoiled};

/// Time between two checks for rows while the stream waits.
const LOOK: Duration = Duration::from_millis(1);

impl Windows {
    /// Publishes the reader's rows until all have arrived.
    pub(super) fn hold<S: Sink, L: Lookup>(
        &mut self,
        number: u64,
        hold: Hold,
        heard: &Heard,
        stage: &mut Stage<'_, S, L>,
    ) -> Result<(), Halt> {
        let Hold { oid, entered, mut brought } = hold;
        let mark = self.recent.mark();
        // If the reader is gone, no rows arrive either.
        let _ = entered.send(());
        let mut published = 0;
        let result = loop {
            if stage.out.stop.is_asked() {
                return Err(Halt::Stopped);
            }
            match brought.try_recv() {
                Ok(Brought::Rows(chunk)) => {
                    match self.publish_rows((oid, mark), &chunk, (heard, published), stage)? {
                        Ok(rows) => published += rows,
                        Err(spoiled) => break Err(spoiled),
                    }
                }
                Ok(Brought::End { edits, is_durable }) => break Ok((edits, is_durable)),
                Err(TryRecvError::Empty) => std::thread::sleep(LOOK),
                Err(TryRecvError::Disconnected) => break Err(Spoiled::CutOff),
            }
        };
        if result.is_err() && published > 0 && stage.out.checkpoints.is_transactional() {
            // What was published of them is aborted with the session, and published again.
            return Err(Halt::Failed(Error::PagesCutOff));
        }
        let (edits, is_durable, result) = match result {
            Ok((edits, is_durable)) => (edits, is_durable, Ok(Closed { published, left_out: 0 })),
            Err(spoiled) => (Vec::new(), false, Err(spoiled)),
        };
        self.must_be_durable |= is_durable;
        self.done(number, edits, result);
        Ok(())
    }

    /// Publishes some rows after `before` rows at this watermark. Returns their number, or that
    /// they must be read again.
    fn publish_rows<S: Sink, L: Lookup>(
        &mut self,
        (oid, mark): (u32, Mark),
        chunk: &Chunk,
        (heard, before): (&Heard, u64),
        stage: &mut Stage<'_, S, L>,
    ) -> Result<Result<u64, Spoiled>, Halt> {
        let unseen = self.recent.unseen_before(mark, &chunk.visibility, &chunk.suspects);
        if let Some(xid) = unseen {
            return Ok(Err(Spoiled::Unseen { xid }));
        }
        let relation = stage.announced(chunk)?;
        let mut position = heard.position();
        position.ordinal += before;
        for line in chunk.lines() {
            let row = self.reader.read(line, &relation)?;
            heard.publish_row(stage, &relation, (row, chunk.time_us), position)?;
            position.ordinal += 1;
        }
        stage.out.commit_what_is_too_much()?;
        if let Some(known) = stage.relations.by_oid(oid)
            && !Arc::ptr_eq(known, &relation)
        {
            // What follows in the stream is of that shape.
            stage.publisher.announce(known, Some(&relation))?;
        }
        Ok(Ok(chunk.rows()))
    }
}
