-- Keeps in mind whether the server, or whoever configured this connection, wants transactions to be
-- read-only by default, before that is set off.
SELECT pg_catalog.set_config('rowcast.read_only', CASE
           WHEN source IN ('database', 'user', 'database user') THEN 'off'
           ELSE setting
       END, false)
FROM pg_catalog.pg_settings
WHERE name = 'default_transaction_read_only'
