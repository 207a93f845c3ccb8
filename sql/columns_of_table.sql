-- Which columns do these tables have, which of them are never null, and where do values come from
-- that are not configured? A default looks at no column, so it is written without the table: with
-- it, PostgreSQL 17 and later lock that, and wait for whoever alters it. From PostgreSQL 18 on, a
-- column that is NOT NULL may hold nulls until the constraint is validated; before, such
-- constraints are not listed.
SELECT a.attrelid,
       a.attname::text,
       a.atttypid,
       a.attnotnull AND NOT EXISTS (
           SELECT FROM pg_catalog.pg_constraint v
           WHERE v.conrelid = a.attrelid AND v.contype = 'n' AND NOT v.convalidated
             AND v.conkey[1] = a.attnum
       ) OR t.typnotnull AS not_null,
       a.attgenerated::text,
       CASE WHEN a.attgenerated = '' THEN pg_catalog.pg_get_expr(d.adbin, 0::oid) END AS expression,
       a.atttypmod,
       pg_catalog.format_type(a.atttypid, a.atttypmod) AS type
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = ANY ($1::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attrelid, a.attnum
