-- What are the names of these tables, and which tables are they partitions of? For these OIDs, or for
-- all tables if $1 is null. Relations of other kinds are included, since their names are taken too.
SELECT c.oid,
       n.nspname::text AS schema,
       c.relname::text AS name,
       c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AS is_table,
       r.oid AS root,
       rn.nspname::text AS root_schema,
       r.relname::text AS root_name
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_class r
    ON c.relispartition AND r.oid = pg_catalog.pg_partition_root(c.oid)
LEFT JOIN pg_catalog.pg_namespace rn ON rn.oid = r.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
  AND n.nspname <> 'information_schema'
  AND n.nspname NOT LIKE 'pg\_%'
  AND ($1::oid[] IS NULL OR c.oid = ANY($1))
ORDER BY c.oid
