-- Ends a walsender, if it is still the same process.
SELECT pg_catalog.pg_terminate_backend(pid)
FROM pg_catalog.pg_stat_activity
WHERE pid = $1 AND backend_start = $2::text::timestamptz
