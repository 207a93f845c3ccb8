-- Signals that a session waits for the slot that is being created, until the connection ends or the
-- lock is released.
SELECT pg_catalog.pg_try_advisory_lock_shared(
    pg_catalog.hashtextextended('rowcast makes the slot ' || $1::text, 0)
)
