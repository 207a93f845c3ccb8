-- After how many milliseconds does this server give up on a silent reader (zero is never), and which
-- of its processes serves this connection?
SELECT setting, pid::text, backend_start::text
FROM pg_catalog.pg_settings, pg_catalog.pg_stat_activity
WHERE name = 'wal_sender_timeout' AND pid = pg_catalog.pg_backend_pid()
