-- Ends the process that creates a slot, if a session of rowcast started it and no longer waits for it.
-- A session that waits holds the lock of lock_slot_making.sql.
SELECT CASE
    WHEN pg_catalog.pg_try_advisory_xact_lock(
        pg_catalog.hashtextextended('rowcast makes the slot ' || $1::text, 0)
    )
    THEN pg_catalog.pg_terminate_backend(maker.pid)
END
FROM pg_catalog.pg_replication_slots AS slot
JOIN pg_catalog.pg_stat_activity AS maker ON maker.pid = slot.active_pid
WHERE slot.slot_name = $1
    AND slot.active_pid = $2
    AND slot.confirmed_flush_lsn IS NULL
    AND maker.usename = current_user
    AND maker.application_name = pg_catalog.current_setting('application_name')
