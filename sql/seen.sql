-- Up to which position can a walsender read, and which transactions does this session see now?
SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
            ELSE pg_catalog.pg_current_wal_flush_lsn() END::text,
       pg_catalog.pg_current_snapshot()::text
