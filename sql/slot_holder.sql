-- Who reads from the slot that this server process serves? Empty where the role may not see it.
SELECT coalesce(application_name, ''), coalesce(host(client_addr), '')
FROM pg_catalog.pg_stat_activity
WHERE pid = $1
