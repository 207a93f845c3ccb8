-- What kind of server is this: is it in recovery (a standby), and does it accept writes? Settings of a
-- role or a database are turned off before, so they do not affect the result.
SELECT pg_catalog.pg_is_in_recovery()::text,
       (pg_catalog.current_setting('rowcast.read_only') = 'on'
        OR pg_catalog.pg_is_in_recovery())::text
