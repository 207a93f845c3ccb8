-- Does a publication have stored generated columns? Before PostgreSQL 18 none has.
SELECT coalesce(pg_catalog.to_jsonb(p) ->> 'pubgencols', 'n') = 's'
FROM pg_catalog.pg_publication p
WHERE p.pubname = $1
