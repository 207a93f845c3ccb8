-- What is the table with this name, whose rows are to be signals: its kind, whether it is part of a
-- tree, whether everybody may write rows, and its columns, with whether each is text.
SELECT c.relkind::text AS kind,
       c.relpersistence::text AS persistence,
       c.relispartition AS is_partition,
       EXISTS (
           SELECT FROM pg_catalog.pg_inherits i WHERE i.inhparent = c.oid OR i.inhrelid = c.oid
       ) AS inherits,
       -- Null for a table that was dropped since this look began.
       COALESCE(pg_catalog.has_any_column_privilege('public', c.oid, 'INSERT'), false) AS is_open,
       ARRAY(
           SELECT a.attname::text FROM pg_catalog.pg_attribute a
           WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
           ORDER BY a.attnum
       ) AS columns,
       ARRAY(
           SELECT t.typcategory IN ('S', 'E')
                  OR t.oid IN ('json'::regtype, 'jsonb'::regtype, 'uuid'::regtype)
           FROM pg_catalog.pg_attribute a
           JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
           WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
           ORDER BY a.attnum
       ) AS are_text
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relname = $2
