-- The settings and the state of the server that a stream depends on. Settings that this version does
-- not have are null; other connections are counted only if the role may see them.
SELECT current_setting('server_version') AS version,
       current_setting('server_version_num')::int AS version_number,
       COALESCE((SELECT s.ssl FROM pg_catalog.pg_stat_ssl s
                 WHERE s.pid = pg_catalog.pg_backend_pid()), false) AS is_encrypted,
       current_setting('max_wal_senders')::int AS max_walsenders,
       (SELECT count(*) FROM pg_catalog.pg_stat_replication)::int AS walsenders,
       current_setting('max_replication_slots')::int AS max_slots,
       (SELECT count(*) FROM pg_catalog.pg_replication_slots)::int AS slots,
       (SELECT s.setting::bigint FROM pg_catalog.pg_settings s
        WHERE s.name = 'max_slot_wal_keep_size') AS max_slot_wal_keep_mb,
       (SELECT s.setting::bigint FROM pg_catalog.pg_settings s
        WHERE s.name = 'idle_replication_slot_timeout') AS idle_slot_timeout_s,
       (SELECT s.setting::bigint FROM pg_catalog.pg_settings s
        WHERE s.name = 'wal_sender_timeout') AS walsender_timeout_ms
