-- How would the stream describe this table's columns, those that a publication could have?
SELECT a.attname::text,
       a.atttypid,
       a.atttypmod,
       a.attgenerated::text,
       c.relreplident = 'f' OR EXISTS (
           SELECT FROM pg_catalog.pg_index i
           CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
           WHERE i.indrelid = c.oid AND k.attnum = a.attnum AND k.place <= i.indnkeyatts
             AND (c.relreplident = 'i' AND i.indisreplident
                  OR c.relreplident = 'd' AND i.indisprimary AND i.indimmediate)
       ) AS in_identity
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.oid = $1
ORDER BY a.attnum
