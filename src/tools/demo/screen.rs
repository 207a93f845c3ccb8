//! Where the demo speaks: events and notes on one output, or apart when the events are for programs.

use std::io::{ErrorKind, Write};

use super::Options;
use super::error::DemoError;
use crate::tools::tail::{Event, Format, Look};

/// The output, and how events look on it.
pub(super) struct Screen<'a> {
    out: &'a mut dyn Write,
    format: Format,
    is_gone: bool,
}

impl<'a> Screen<'a> {
    pub(super) fn new(out: &'a mut dyn Write, options: &Options) -> Self {
        let format = if options.json {
            Format::Json
        } else {
            Format::Text(Look { color: options.color, width: options.width })
        };
        Self { out, format, is_gone: false }
    }

    /// Shows an event.
    pub(super) fn event(&mut self, event: &Event) -> Result<(), DemoError> {
        let line = self.format.show(event);
        self.write(&format!("{line}\n"))
    }

    /// Says something about the demo itself.
    pub(super) fn note(&mut self, text: &str) -> Result<(), DemoError> {
        if self.format == Format::Json {
            // Whoever closed stderr does not want to know.
            let _unread = std::io::stderr().write_all(text.as_bytes());
            return Ok(());
        }
        self.write(text)
    }

    /// Whether the reader went away, as `head` does.
    pub(super) fn is_gone(&self) -> bool {
        self.is_gone
    }

    fn write(&mut self, text: &str) -> Result<(), DemoError> {
        if self.is_gone {
            return Ok(());
        }
        match self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => self.is_gone = true,
            Err(error) => return Err(DemoError::Output(error)),
            Ok(()) => {}
        }
        Ok(())
    }
}
