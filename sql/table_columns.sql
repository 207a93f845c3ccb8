-- What do filters of these tables have to heed? The columns that can be published, those that may
-- key a row, and what old rows carry: a partitioned table's rows are those of its partitions, each
-- with a replica identity of its own, and of partitions to come.
WITH wanted AS (
    SELECT c.oid, n.nspname::text AS schema, c.relname::text AS name
    FROM unnest($1::text[], $2::text[]) AS w (schema, name)
    JOIN pg_catalog.pg_namespace n ON n.nspname = w.schema
    JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = w.name
),
members AS (
    SELECT w.oid AS root, c.oid, c.relreplident
    FROM wanted w
    JOIN pg_catalog.pg_class c
        ON c.oid = w.oid OR c.oid IN (SELECT relid FROM pg_catalog.pg_partition_tree(w.oid))
),
key_columns AS (
    SELECT i.indrelid, i.indexrelid, i.indisprimary, i.indisreplident, k.attnum
    FROM pg_catalog.pg_index i
    CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
    WHERE i.indrelid IN (SELECT oid FROM members)
      AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
      AND k.place <= i.indnkeyatts
),
identities AS (
    SELECT m.root, m.oid, a.attname::text AS name
    FROM members m
    JOIN pg_catalog.pg_attribute a
        ON a.attrelid = m.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE m.relreplident = 'f'
       OR EXISTS (
           SELECT FROM key_columns k
           WHERE k.indrelid = m.oid AND k.attnum = a.attnum
             AND (m.relreplident = 'i' AND k.indisreplident
                  OR m.relreplident = 'd' AND k.indisprimary)
       )
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
       ) AS key,
       (SELECT bool_or(m.relreplident = 'f') FROM members m WHERE m.root = w.oid) AS is_full,
       ARRAY(SELECT DISTINCT i.name FROM identities i WHERE i.root = w.oid) AS identity,
       ARRAY(
           SELECT i.name
           FROM identities i
           WHERE i.root = w.oid
           GROUP BY i.name
           HAVING count(*) = (SELECT count(*) FROM members m WHERE m.root = w.oid)
       ) AS common_identity
FROM wanted w
