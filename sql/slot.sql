-- What is the state of a replication slot? The reason of an invalidation is known from version 17
-- on.
SELECT plugin::text, database::text, active_pid, confirmed_flush_lsn::text, wal_status,
       pg_catalog.to_jsonb(slot) ->> 'invalidation_reason'
FROM pg_catalog.pg_replication_slots AS slot
WHERE slot_name = $1
