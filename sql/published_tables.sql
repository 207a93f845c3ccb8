-- The end of a query that begins with published.sql: these tables, and of each which columns (null: all
-- that are not generated), and which entry of the publication filters its rows. All, or the one of this
-- schema ($2) and name ($3).
SELECT DISTINCT ON (n.nspname, c.relname)
       c.oid, n.nspname::text, c.relname::text, c.relkind::text, p.attnames, p.filtered_by
FROM published p
JOIN pg_catalog.pg_class c ON c.oid = p.oid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE $2::text IS NULL OR n.nspname = $2 AND c.relname = $3::text
-- Of one that is in two publications, what the one has and the other has not comes too.
ORDER BY n.nspname, c.relname, p.attnames IS NOT NULL, p.filtered_by IS NOT NULL
