-- A table and what it is a partition of.
SELECT n.nspname::text, c.relname::text
FROM pg_catalog.pg_class t
JOIN pg_catalog.pg_namespace o ON o.oid = t.relnamespace
JOIN pg_catalog.pg_class c
    ON c.oid = t.oid OR c.oid IN (SELECT a.relid FROM pg_catalog.pg_partition_ancestors(t.oid) a)
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE o.nspname = $1 AND t.relname = $2
