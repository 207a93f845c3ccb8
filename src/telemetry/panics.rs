//! A panic in any thread or task ends the process, with its text in the log.
//!
//! A dead thread would not be noticed in time: others would wait for its work forever. So panics do
//! not unwind: the standard library's panic hook, which runs first in any thread, ends the process.
//! Nothing is lost by that: what is not confirmed is published again.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicBool, Ordering};

/// From here on a panic ends the process with this code.
pub fn end_on_panic(code: i32) {
    static ENDS: AtomicBool = AtomicBool::new(false);
    std::panic::set_hook(Box::new(move |info| {
        if ENDS.swap(true, Ordering::AcqRel) {
            // Another thread is already ending the process.
            loop {
                std::thread::park();
            }
        }
        super::last_words(&words(info));
        std::process::exit(code);
    }));
}

fn words(info: &PanicHookInfo<'_>) -> String {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("unnamed").to_owned();
    let at = info.location().map_or_else(String::new, |at| format!(" at {at}"));
    let text = info.payload_as_str().unwrap_or("no text");
    let trace = Backtrace::capture();
    let trace = match trace.status() {
        BacktraceStatus::Captured => format!("\n{trace}"),
        _ => String::new(),
    };
    format!(
        "error: the thread {name:?} panicked{at}: {text}{trace}\n\
         fix: please report this, with the log and the server's version\n"
    )
}
