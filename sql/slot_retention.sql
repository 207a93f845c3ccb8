-- How much WAL does a replication slot hold back, how much may it hold back, and where is the WAL
-- stored?
SELECT
    (written - slot.restart_lsn)::bigint AS retained_bytes,
    slot.wal_status,
    slot.safe_wal_size::bigint AS safe_bytes,
    slot.active,
    -- Hidden from roles without pg_read_all_settings, and of use on the same host alone.
    CASE WHEN pg_catalog.inet_server_addr() IS NULL THEN
        (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'data_directory')
    END AS data_directory
FROM pg_catalog.pg_replication_slots AS slot,
    LATERAL (SELECT CASE
        WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
        ELSE pg_catalog.pg_current_wal_lsn()
    END) AS wal (written)
WHERE slot.slot_name = $1
