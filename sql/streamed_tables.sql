-- Of which tables would changes be streamed, and with which table is each put into a publication?
-- With $1 a partitioned table streams as itself, else each of its partitions does.
SELECT c.oid,
       n.nspname::text AS schema,
       c.relname::text AS name,
       rn.nspname::text AS root_schema,
       r.relname::text AS root_name
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_class r ON r.oid = COALESCE(pg_catalog.pg_partition_root(c.oid), c.oid)
JOIN pg_catalog.pg_namespace rn ON rn.oid = r.relnamespace
WHERE c.relkind IN ('r', 'p')
  AND CASE WHEN $1 THEN NOT c.relispartition ELSE c.relkind = 'r' END
  AND c.relpersistence = 'p'
  AND n.nspname <> 'information_schema'
  AND n.nspname NOT LIKE 'pg\_%'
ORDER BY c.oid
