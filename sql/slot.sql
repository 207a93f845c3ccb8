-- How does a replication slot stand?
SELECT plugin::text, database::text, active_pid, confirmed_flush_lsn::text, wal_status
FROM pg_catalog.pg_replication_slots
WHERE slot_name = $1
