-- Sets every timeout of this session to 0, no matter who configured it, including timeouts of later
-- versions. Two settings are excluded, since they do not limit the session's own work.
SELECT pg_catalog.count(pg_catalog.set_config(name, '0', false))
FROM pg_catalog.pg_settings
WHERE pg_catalog.right(name, 8) = '_timeout'
  AND pg_catalog.strpos(name, '.') = 0
  AND unit = 'ms'
  AND context = 'user'
  AND setting <> '0'
  AND name NOT IN ('tcp_user_timeout', 'wal_sender_timeout')
