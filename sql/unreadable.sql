-- Which of these tables, or of their partitions, can this role not read? $1 and $2 are their schemas
-- and names. Reading by pages needs SELECT on the whole table, and each partition is read separately.
-- Read without locks.
WITH RECURSIVE member (oid, relkind) AS (
    SELECT c.oid, c.relkind
    FROM unnest($1::text[], $2::text[]) AS wanted (schema, name)
    JOIN pg_catalog.pg_namespace n ON n.nspname = wanted.schema
    JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.name
    UNION
    SELECT c.oid, c.relkind
    FROM member m
    JOIN pg_catalog.pg_inherits i ON i.inhparent = m.oid AND NOT i.inhdetachpending
    JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
    WHERE m.relkind = 'p'
)
SELECT n.nspname::text, c.relname::text
FROM member m
JOIN pg_catalog.pg_class c ON c.oid = m.oid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r'
  AND NOT (pg_catalog.has_table_privilege(c.oid, 'SELECT')
           AND pg_catalog.has_schema_privilege(n.oid, 'USAGE'))
ORDER BY 1, 2
