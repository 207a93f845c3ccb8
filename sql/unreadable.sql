-- Which of these tables, or of their partitions, can this role not read? $1 and $2 are their schemas
-- and names. Pages are only read by who may read the whole table, and a partition is read by itself.
SELECT n.nspname::text, c.relname::text
FROM unnest($1::text[], $2::text[]) AS wanted (schema, name)
JOIN pg_catalog.pg_namespace o ON o.nspname = wanted.schema
JOIN pg_catalog.pg_class t ON t.relnamespace = o.oid AND t.relname = wanted.name
JOIN pg_catalog.pg_class c
    ON c.oid = t.oid OR c.oid IN (SELECT p.relid FROM pg_catalog.pg_partition_tree(t.oid) p WHERE p.isleaf)
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r'
  AND NOT (pg_catalog.has_table_privilege(c.oid, 'SELECT')
           AND pg_catalog.has_schema_privilege(n.oid, 'USAGE'))
ORDER BY 1, 2
