-- Says that somebody waits for a slot that is made: until this connection ends, or it is unlocked.
SELECT pg_catalog.pg_try_advisory_lock_shared(
    pg_catalog.hashtextextended('rowcast makes the slot ' || $1::text, 0)
)
