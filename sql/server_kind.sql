-- What kind of server is this: in recovery (a standby), and does it take writes?
SELECT pg_catalog.pg_is_in_recovery()::text,
       (pg_catalog.current_setting('transaction_read_only') = 'on'
        OR pg_catalog.pg_is_in_recovery())::text
