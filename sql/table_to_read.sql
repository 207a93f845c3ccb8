-- What kind of table is this, how many rows has it about, and on how many pages? A partitioned
-- table has those of its partitions, and not its own numbers, which are of the same rows; rows that
-- nobody has counted yet are none.
SELECT c.oid,
       c.relkind::text,
       (SELECT sum(greatest(m.reltuples, 0))::bigint
        FROM pg_catalog.pg_class m
        WHERE (m.oid = c.oid AND c.relkind <> 'p')
           OR m.oid IN (SELECT t.relid FROM pg_catalog.pg_partition_tree(c.oid) t WHERE t.isleaf)
       ) AS rows,
       (SELECT sum(m.relpages)::bigint
        FROM pg_catalog.pg_class m
        WHERE (m.oid = c.oid AND c.relkind <> 'p')
           OR m.oid IN (SELECT t.relid FROM pg_catalog.pg_partition_tree(c.oid) t WHERE t.isleaf)
       ) AS pages
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relname = $2
