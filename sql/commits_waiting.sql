-- Which transactions have written their commits and wait for synchronous standbys, so that nobody
-- sees them yet? Null stands for unknown ones: prepared ones, and those of other roles where this
-- one may not look. Who is hidden, and from whom, follows.
SELECT a.backend_xid::text,
       a.backend_type IS NULL AS is_hidden,
       current_user::text AS role
FROM pg_catalog.pg_stat_activity a
WHERE a.wait_event = 'SyncRep'
   OR (a.backend_type IS NULL
       AND pg_catalog.current_setting('synchronous_standby_names') <> '')
