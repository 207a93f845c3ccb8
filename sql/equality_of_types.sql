-- Which operator compares two values of each of these types for equality, if it is not one of the
-- system's? Returns its schema, and the type of its arguments, as written in SQL. A domain is compared
-- as its base type.
WITH RECURSIVE base (oid, base) AS (
    SELECT w.oid, w.oid FROM unnest($1::oid[]) AS w (oid)
    UNION ALL
    SELECT b.oid, t.typbasetype
    FROM base b
    JOIN pg_catalog.pg_type t ON t.oid = b.base
    WHERE t.typtype = 'd'
)
SELECT b.oid, n.nspname::text, pg_catalog.format('%I.%I', s.nspname, t.typname)
FROM base b
JOIN pg_catalog.pg_type t ON t.oid = b.base
JOIN pg_catalog.pg_namespace s ON s.oid = t.typnamespace
JOIN pg_catalog.pg_opclass c ON c.opcintype = t.oid AND c.opcdefault
JOIN pg_catalog.pg_am m ON m.oid = c.opcmethod AND m.amname = 'btree'
JOIN pg_catalog.pg_amop p
    ON p.amopfamily = c.opcfamily AND p.amopstrategy = 3
   AND p.amoplefttype = t.oid AND p.amoprighttype = t.oid
JOIN pg_catalog.pg_operator o ON o.oid = p.amopopr
JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
WHERE n.nspname <> 'pg_catalog'
