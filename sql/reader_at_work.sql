-- Does the server work for this session that reads a table? Not when it waits for its client to take
-- rows or to say the next word, or is gone.
SELECT 1
FROM pg_catalog.pg_stat_activity
WHERE pid = $1 AND state = 'active' AND wait_event_type IS DISTINCT FROM 'Client'
