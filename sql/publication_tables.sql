-- Which tables were put into a publication one by one, with which columns (null for all) and which
-- row filter? (PostgreSQL 15 and later)
SELECT n.nspname::text,
       c.relname::text,
       CASE WHEN r.prattrs IS NOT NULL THEN
           ARRAY(
               SELECT a.attname::text
               FROM pg_catalog.pg_attribute a
               WHERE a.attrelid = c.oid AND a.attnum = ANY (r.prattrs::int2[])
               ORDER BY a.attnum
           )
       END AS columns,
       pg_catalog.pg_get_expr(r.prqual, r.prrelid) AS condition
FROM pg_catalog.pg_publication p
JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid
JOIN pg_catalog.pg_class c ON c.oid = r.prrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE p.pubname = $1
ORDER BY 1, 2
