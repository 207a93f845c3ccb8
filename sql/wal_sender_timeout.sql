-- After how many milliseconds does this server give up on a silent reader? Zero is never.
SELECT setting FROM pg_catalog.pg_settings WHERE name = 'wal_sender_timeout'
