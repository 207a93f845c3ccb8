-- Does a partitioned table have partitions that do not tell old rows whole? Each partition has a
-- replica identity of its own, whatever the root's is.
SELECT EXISTS (
    SELECT
    FROM pg_catalog.pg_partition_tree($1::oid::regclass) t
    JOIN pg_catalog.pg_class c ON c.oid = t.relid
    WHERE t.isleaf AND c.relreplident <> 'f'
)
