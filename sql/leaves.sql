-- Which tables hold the rows of a table: itself, or its partitions?
SELECT n.nspname::text, l.relname::text
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace o ON o.oid = c.relnamespace
JOIN pg_catalog.pg_class l
    ON l.oid IN (SELECT t.relid FROM pg_catalog.pg_partition_tree(c.oid) t WHERE t.isleaf)
    OR (l.oid = c.oid AND c.relkind <> 'p')
JOIN pg_catalog.pg_namespace n ON n.oid = l.relnamespace
WHERE o.nspname = $1 AND c.relname = $2 AND l.relkind = 'r'
ORDER BY 1, 2
