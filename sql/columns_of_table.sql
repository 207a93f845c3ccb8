-- Which columns do these tables have, which of them are never null, and what are their defaults? A
-- default refers to no column, so its text is produced without the table: with the table, PostgreSQL 17
-- and later lock it, and wait for a session that alters it. From PostgreSQL 18 on, a NOT NULL column
-- may contain nulls until the constraint is validated; earlier versions do not list such constraints.
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
