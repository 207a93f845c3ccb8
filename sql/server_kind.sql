-- What kind of server is this: in recovery (a standby), and does it take writes? What a role or a
-- database has for itself is lifted, and says nothing of the server.
SELECT pg_catalog.pg_is_in_recovery()::text,
       (pg_catalog.current_setting('rowcast.read_only') = 'on'
        OR pg_catalog.pg_is_in_recovery())::text
