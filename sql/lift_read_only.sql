-- Stores whether the server, or the configuration of this connection, makes transactions read-only by
-- default, before that is turned off.
SELECT pg_catalog.set_config('rowcast.read_only', CASE
           WHEN source IN ('database', 'user', 'database user') THEN 'off'
           ELSE setting
       END, false)
FROM pg_catalog.pg_settings
WHERE name = 'default_transaction_read_only'
