-- Which tables do these publications publish in effect, by OID and name?
SELECT c.oid, n.nspname::text, c.relname::text
FROM pg_catalog.pg_publication_tables t
JOIN pg_catalog.pg_namespace n ON n.nspname = t.schemaname
JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename
WHERE t.pubname = ANY ($1::text[])
