-- Is the server working for this session? Not if it waits for its client's next message, or if it is
-- gone.
SELECT 1 FROM pg_catalog.pg_stat_activity WHERE pid = $1 AND state = 'active'
