-- Which tables hold the rows of a table: itself, or its partitions? Read without locks.
WITH RECURSIVE member (oid, relkind) AS (
    SELECT c.oid, c.relkind
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relname = $2
    UNION ALL
    SELECT c.oid, c.relkind
    FROM member m
    JOIN pg_catalog.pg_inherits i ON i.inhparent = m.oid AND NOT i.inhdetachpending
    JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
    WHERE m.relkind = 'p'
)
SELECT n.nspname::text, l.relname::text
FROM member m
JOIN pg_catalog.pg_class l ON l.oid = m.oid
JOIN pg_catalog.pg_namespace n ON n.oid = l.relnamespace
WHERE m.relkind = 'r'
ORDER BY 1, 2
