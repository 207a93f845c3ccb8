-- What kind of table is this, and about how many rows and pages does it have? A partitioned table has
-- the sums of its partitions; its own numbers count the same rows, so they are not used. Rows without
-- statistics count as none. Read without locks.
WITH RECURSIVE member (root, oid, relkind) AS (
    SELECT c.oid, c.oid, c.relkind
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relname = $2
    UNION ALL
    SELECT m.root, c.oid, c.relkind
    FROM member m
    JOIN pg_catalog.pg_inherits i ON i.inhparent = m.oid AND NOT i.inhdetachpending
    JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
    WHERE m.relkind = 'p'
)
SELECT r.oid,
       r.relkind::text,
       sum(greatest(c.reltuples, 0))::bigint AS rows,
       sum(c.relpages)::bigint AS pages
FROM member m
JOIN pg_catalog.pg_class r ON r.oid = m.root
LEFT JOIN pg_catalog.pg_class c ON c.oid = m.oid AND m.relkind <> 'p'
GROUP BY r.oid, r.relkind
