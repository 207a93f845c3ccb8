-- Which unique indexes of these tables could key their rows?
-- Partial indexes, indexes on expressions and indexes that are not ready key nothing.
-- A deferrable primary key is no replica identity, so it counts as any other unique index.
SELECT i.indrelid,
       i.indisprimary AND i.indimmediate,
       i.indisreplident,
       ARRAY(
           SELECT a.attname::text
           FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
           JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
           WHERE k.place <= i.indnkeyatts
           ORDER BY k.place
       ) AS columns
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid = ANY ($1::oid[])
  AND i.indisunique
  AND i.indisvalid
  AND i.indpred IS NULL
  AND i.indexprs IS NULL
ORDER BY i.indrelid, i.indisprimary DESC, c.relname
