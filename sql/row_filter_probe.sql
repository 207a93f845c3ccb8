-- How does the server write the condition that was put on the temporary table, and which columns
-- does it look at?
SELECT pg_catalog.pg_get_expr(c.conbin, c.conrelid) AS condition,
       ARRAY(
           SELECT a.attname::text
           FROM pg_catalog.pg_attribute a
           WHERE a.attrelid = c.conrelid AND a.attnum = ANY (c.conkey)
           ORDER BY a.attnum
       ) AS columns
FROM pg_catalog.pg_constraint c
WHERE c.conrelid = 'pg_temp.rowcast_probe'::regclass AND c.conname = 'rowcast_probe'
