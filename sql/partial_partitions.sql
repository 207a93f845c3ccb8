-- Which of these tables are partitioned and have partitions that do not tell old rows whole? Each
-- partition has a replica identity of its own, whatever the root's is.
SELECT r.oid
FROM pg_catalog.pg_class r
WHERE r.oid = ANY ($1::oid[])
  AND r.relkind = 'p'
  AND EXISTS (
      SELECT
      FROM pg_catalog.pg_partition_tree(r.oid::regclass) t
      JOIN pg_catalog.pg_class c ON c.oid = t.relid
      WHERE t.isleaf AND c.relreplident <> 'f'
  )
