-- Which columns of these tables do filters have to consider? The columns that can be published, and
-- those that may be part of a key. (tables.sql reads which columns old rows contain.)
WITH wanted AS (
    SELECT c.oid, n.nspname::text AS schema, c.relname::text AS name
    FROM unnest($1::text[], $2::text[]) AS w (schema, name)
    JOIN pg_catalog.pg_namespace n ON n.nspname = w.schema
    JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = w.name
),
key_columns AS (
    SELECT i.indrelid, i.indexrelid, i.indisprimary, k.attnum
    FROM pg_catalog.pg_index i
    CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
    WHERE i.indrelid IN (SELECT oid FROM wanted)
      AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
      AND k.place <= i.indnkeyatts
)
SELECT w.schema,
       w.name,
       ARRAY(
           SELECT a.attname::text
           FROM pg_catalog.pg_attribute a
           WHERE a.attrelid = w.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
           ORDER BY a.attnum
       ) AS columns,
       ARRAY(
           SELECT DISTINCT a.attname::text
           FROM key_columns k
           JOIN pg_catalog.pg_attribute a ON a.attrelid = w.oid AND a.attnum = k.attnum
           WHERE k.indrelid = w.oid
             AND k.indexrelid = (
                 SELECT i.indexrelid
                 FROM key_columns i
                 JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
                 WHERE i.indrelid = w.oid
                 ORDER BY i.indisprimary DESC, c.relname
                 LIMIT 1
             )
       ) AS key
FROM wanted w
