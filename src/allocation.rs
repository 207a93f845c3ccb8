//! Asks for memory before it is taken, where what is read decides how much: a row of a few hundred
//! megabytes. Where the system refuses it (a limit on the address space, no overcommit), the process
//! can end with words; a refusal in the middle of a copy would abort it.
//!
//! What is asked for is given back at once. That it is there a moment later is not promised, and a
//! container's limit on resident memory refuses nothing: it ends the process. So this is for the message,
//! not for the bound; `docs/memory.md` says what a row needs.

/// From this size on it is asked: below, what is asked for costs more than it tells.
pub(crate) const LARGE: usize = 16 << 20;

/// What a row takes at the peak, in its own size: as WAL, as record, in the queue, in its batch, compressed.
pub(crate) const TIMES: usize = 5;

/// Whether the system would give this process so many bytes more.
#[must_use]
pub(crate) fn fits(bytes: usize) -> bool {
    let mut buffer = Vec::<u8>::new();
    let is_given = buffer.try_reserve_exact(bytes).is_ok();
    // Memory that nobody uses need not be asked for, as far as a compiler is concerned.
    std::hint::black_box(&buffer);
    is_given
}

/// What it means that memory is refused for a row of so many bytes.
#[must_use]
pub(crate) fn refused(bytes: usize) -> String {
    format!(
        "a row or message of {} MB needs about {} MB of memory, and the system gives this process no more",
        bytes >> 20,
        bytes.saturating_mul(TIMES) >> 20
    )
}

/// What can be done about that.
pub(crate) const FIX: &str = "raise the limit on the memory of the process to what is named and `memory` (ulimit \
                       -v, LimitAS= of the unit, the container's limit); or leave the column out by \
                       exclude_columns";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_never_be_had_is_refused_and_what_is_small_is_not() {
        assert!(fits(0) && fits(LARGE));
        assert!(!fits(usize::MAX) && !fits(1 << 60));
    }
}
