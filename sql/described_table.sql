-- What would a Relation message say of a table? Its name, its replica identity, and its columns with
-- types, type modifiers and whether old rows carry them. $2 are the columns that are published; null
-- for those that are published when nobody says which: all that are not generated. From PostgreSQL
-- 18 on ($3), generated columns can be among them; before, the catalog lists some that never are.
SELECT n.nspname::text AS schema,
       c.relname::text AS name,
       c.relreplident::text AS replica_identity,
       COALESCE(array_agg(a.attname::text ORDER BY a.attnum) FILTER (WHERE a.attnum > 0), '{}')
           AS columns,
       COALESCE(array_agg(a.atttypid ORDER BY a.attnum) FILTER (WHERE a.attnum > 0), '{}') AS types,
       COALESCE(array_agg(a.atttypmod ORDER BY a.attnum) FILTER (WHERE a.attnum > 0), '{}')
           AS typmods,
       COALESCE(
           array_agg(
               c.relreplident = 'f'
               OR EXISTS (
                   SELECT
                   FROM pg_catalog.pg_index i
                   CROSS JOIN LATERAL unnest(i.indkey::int2[])
                       WITH ORDINALITY AS k (attnum, place)
                   WHERE i.indrelid = c.oid
                     AND (c.relreplident = 'd' AND i.indisprimary
                          OR c.relreplident = 'i' AND i.indisreplident)
                     AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL
                     AND k.attnum = a.attnum
                     AND k.place <= i.indnkeyatts
               )
               ORDER BY a.attnum
           ) FILTER (WHERE a.attnum > 0),
           '{}'
       ) AS in_identity
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_attribute a
    ON a.attrelid = c.oid
   AND a.attnum > 0
   AND NOT a.attisdropped
   AND (a.attname = ANY ($2::text[]) OR $2 IS NULL)
   AND (a.attgenerated = '' OR $2 IS NOT NULL AND $3)
WHERE c.oid = $1
GROUP BY c.oid, n.nspname, c.relname, c.relreplident
