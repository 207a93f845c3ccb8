-- Is the server working for this session, which reads a table? Not if it waits for its client to
-- receive rows or to send a message, or if it is gone.
SELECT 1
FROM pg_catalog.pg_stat_activity
WHERE pid = $1 AND state = 'active' AND wait_event_type IS DISTINCT FROM 'Client'
