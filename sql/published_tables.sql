-- Which tables do these publications publish in effect, and of each which columns and rows? A
-- partitioned table is either its root or its partitions, as the publication has it. (PostgreSQL 15
-- and later)
SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, t.attnames::text[], t.rowfilter
FROM pg_catalog.pg_publication_tables t
JOIN pg_catalog.pg_namespace n ON n.nspname = t.schemaname
JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename
WHERE t.pubname = ANY ($1::text[])
ORDER BY 2, 3
