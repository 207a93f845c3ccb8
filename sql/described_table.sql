-- What would Relation messages contain for these tables? Their names, their replica identities, and
-- their columns with types, type modifiers and whether old rows contain them. $2 are the published
-- columns of each, as a JSON array; null means the default, which is all columns that are not
-- generated. From PostgreSQL 18 on ($3), generated columns can be among them; earlier versions list
-- some in the catalog that are never published.
WITH wanted AS (
    SELECT w.oid,
           w.published IS NULL AS has_no_list,
           ARRAY(SELECT pg_catalog.json_array_elements_text(w.published::json)) AS published
    FROM unnest($1::oid[], $2::text[]) AS w (oid, published)
)
SELECT c.oid,
       n.nspname::text AS schema,
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
FROM wanted w
JOIN pg_catalog.pg_class c ON c.oid = w.oid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_attribute a
    ON a.attrelid = c.oid
   AND a.attnum > 0
   AND NOT a.attisdropped
   AND (w.has_no_list OR a.attname = ANY (w.published))
   AND (a.attgenerated = '' OR NOT w.has_no_list AND $3)
GROUP BY c.oid, n.nspname, c.relname, c.relreplident
