-- Sets every limit on how long this session may take something to none, whoever set it: those that this
-- version knows, and those of later ones. Two are no limits on the session's own work.
SELECT pg_catalog.count(pg_catalog.set_config(name, '0', false))
FROM pg_catalog.pg_settings
WHERE pg_catalog.right(name, 8) = '_timeout'
  AND pg_catalog.strpos(name, '.') = 0
  AND unit = 'ms'
  AND context = 'user'
  AND setting <> '0'
  AND name NOT IN ('tcp_user_timeout', 'wal_sender_timeout')
