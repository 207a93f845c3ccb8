-- In which files are the rows of these tables, how large are they, and may the role read them? A
-- partitioned table's rows are in its partitions, each of which is read by itself, so rights on the
-- root do not help. Columns that can't be read are named.
SELECT r.oid AS root,
       c.oid,
       n.nspname::text AS schema,
       c.relname::text AS name,
       c.relkind::text AS kind,
       COALESCE(pg_catalog.pg_relation_filenode(c.oid), 0::oid) AS filenode,
       COALESCE(pg_catalog.pg_relation_size(c.oid), 0)
           / pg_catalog.current_setting('block_size')::bigint AS pages,
       c.reltuples::float8 AS rows,
       c.relpages::bigint AS pages_then,
       pg_catalog.has_schema_privilege(n.oid, 'USAGE') AS may_use_schema,
       ARRAY(
           SELECT a.attname::text
           FROM pg_catalog.pg_attribute a
           WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
             AND NOT pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT')
           ORDER BY a.attnum
       ) AS hidden,
       pg_catalog.row_security_active(c.oid) AS has_row_security,
       pg_catalog.pg_table_size(c.oid) AS whole_bytes
FROM unnest($1::oid[]) AS r (oid)
CROSS JOIN LATERAL (
    SELECT p.relid FROM pg_catalog.pg_partition_tree(r.oid) p WHERE p.isleaf
    UNION
    SELECT s.oid FROM pg_catalog.pg_class s WHERE s.oid = r.oid AND s.relkind <> 'p'
) AS leaf (oid)
JOIN pg_catalog.pg_class c ON c.oid = leaf.oid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
ORDER BY r.oid, pages DESC, c.oid
