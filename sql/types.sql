-- What kind of types are these, and which types are they based on? Follows domains to their base types
-- and arrays to their elements, and reads no other types of the database.
WITH RECURSIVE wanted (oid) AS (
    SELECT unnest($1::oid[])
    UNION
    SELECT CASE
               WHEN t.typtype = 'd' THEN t.typbasetype
               WHEN t.typcategory = 'A' THEN t.typelem
           END
    FROM wanted
    JOIN pg_catalog.pg_type t ON t.oid = wanted.oid
    WHERE t.typtype = 'd' OR (t.typcategory = 'A' AND t.typelem <> 0)
)
SELECT t.oid,
       n.nspname::text,
       t.typname::text,
       t.typtype::text,
       e.oid IS NOT NULL AS is_array,
       t.typelem,
       t.typbasetype,
       t.typtypmod,
       ARRAY(
           SELECT e.enumlabel::text
           FROM pg_catalog.pg_enum e
           WHERE e.enumtypid = t.oid
           ORDER BY e.enumsortorder
       ) AS labels,
       ascii(coalesce(e.typdelim, ',')::text) AS delimiter
FROM wanted
JOIN pg_catalog.pg_type t ON t.oid = wanted.oid
JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem AND e.typarray = t.oid
