-- Which of these tables are partitioned and have partitions that do not send complete old rows? Each
-- partition has its own replica identity, whatever the root's is. Read without locks, since rows wait
-- for this query.
WITH RECURSIVE member (root, oid, relkind, relreplident) AS (
    SELECT c.oid, c.oid, c.relkind, c.relreplident
    FROM pg_catalog.pg_class c
    WHERE c.oid = ANY ($1::oid[]) AND c.relkind = 'p'
    UNION ALL
    SELECT m.root, c.oid, c.relkind, c.relreplident
    FROM member m
    JOIN pg_catalog.pg_inherits i ON i.inhparent = m.oid AND NOT i.inhdetachpending
    JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
    WHERE m.relkind = 'p'
)
SELECT DISTINCT m.root
FROM member m
WHERE m.relkind <> 'p' AND m.relreplident <> 'f'
