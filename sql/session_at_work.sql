-- Does the server work for this session? Not when it waits for its client's next word, or is gone.
SELECT 1 FROM pg_catalog.pg_stat_activity WHERE pid = $1 AND state = 'active'
