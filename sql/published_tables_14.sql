-- Which tables do these publications publish in effect? (Before PostgreSQL 15, which can publish some of
-- their columns and rows.)
SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text,
       NULL::text[] AS attnames, NULL::text AS rowfilter
FROM pg_catalog.pg_publication_tables t
JOIN pg_catalog.pg_namespace n ON n.nspname = t.schemaname
JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename
WHERE t.pubname = ANY ($1::text[])
ORDER BY 2, 3
