//! Checks that memory is available before a very large row (hundreds of megabytes) is taken in. If
//! the system refuses it (a limit on the address space, no overcommit), the process can end with an
//! error message; a refusal in the middle of a copy would abort it.
//!
//! The memory is freed at once, so nothing guarantees that it is available a moment later, and a
//! container's limit on resident memory never refuses: it kills the process. So this improves the
//! error message; it is not a bound. `docs/memory.md` says what a row needs.

/// Rows below this size are not checked: the check would cost more than it is worth.
pub(crate) const LARGE: usize = 16 << 20;

/// Peak memory of a row as a multiple of its size: as WAL, as record, in the queue, in its batch,
/// compressed.
pub(crate) const TIMES: usize = 5;

/// Whether the system would grant this process `bytes` more.
#[must_use]
pub(crate) fn fits(bytes: usize) -> bool {
    let mut buffer = Vec::<u8>::new();
    let is_given = buffer.try_reserve_exact(bytes).is_ok();
    // The compiler may remove an allocation that is never used.
    std::hint::black_box(&buffer);
    is_given
}

/// The error text when memory is refused for a row of `bytes`.
#[must_use]
pub(crate) fn refused(bytes: usize) -> String {
    format!(
        "a row or message of {} MB needs about {} MB of memory, and the system refuses this \
         process that much",
        bytes >> 20,
        bytes.saturating_mul(TIMES) >> 20
    )
}

/// The fix.
pub(crate) const FIX: &str = "raise the memory limit of the process to that plus `memory` \
                              (ulimit -v, LimitAS= of the unit, the container's limit); or leave \
                              the column out with exclude_columns";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_never_be_had_is_refused_and_what_is_small_is_not() {
        assert!(fits(0) && fits(LARGE));
        assert!(!fits(usize::MAX) && !fits(1 << 60));
    }
}
