-- Which transactions have written their commits but wait for synchronous standbys, so that nobody sees
-- them yet? Null means unknown transactions: prepared ones, and those of roles whose activity this role
-- may not see. Also returns whether it is
-- hidden, and the current role.
SELECT a.backend_xid::text,
       a.backend_type IS NULL AS is_hidden,
       current_user::text AS role
FROM pg_catalog.pg_stat_activity a
WHERE a.wait_event = 'SyncRep'
   OR (a.backend_type IS NULL
       AND pg_catalog.current_setting('synchronous_standby_names') <> '')
