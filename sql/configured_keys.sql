-- Could rows of these tables be keyed by columns that the configuration names? One row for each table
-- as the stream describes it ($3: partitions as their root) and each table that holds its rows: which
-- columns there are, which of them may be null, and which of them old rows carry. A partition has a
-- replica identity of its own, and old rows come under the description of the root, so both count.
-- Read without locks: this is asked again and again while the application alters its tables.
WITH RECURSIVE wanted AS (
    SELECT c.oid, c.relkind
    FROM unnest($1::text[], $2::text[]) AS w (schema, name)
    JOIN pg_catalog.pg_namespace n ON n.nspname = w.schema
    JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = w.name
),
tree (root, oid, relkind) AS (
    SELECT w.oid, w.oid, w.relkind FROM wanted w
    UNION ALL
    SELECT t.root, c.oid, c.relkind
    FROM tree t
    JOIN pg_catalog.pg_inherits i ON i.inhparent = t.oid
    JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
    WHERE t.relkind = 'p'
),
members AS (
    SELECT CASE WHEN $3 THEN t.root ELSE t.oid END AS described, t.oid
    FROM tree t
    WHERE t.relkind = 'r' OR t.oid = t.root AND $3
)
SELECT n.nspname::text AS schema,
       c.relname::text AS name,
       ns.nspname::text AS member_schema,
       m.relname::text AS member_name,
       ARRAY(
           SELECT a.attname::text
           FROM pg_catalog.pg_attribute a
           WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
             AND (a.attgenerated = '' OR a.attgenerated = 's' AND $4)
           ORDER BY a.attnum
       ) AS columns,
       ARRAY(
           SELECT a.attname::text
           FROM pg_catalog.pg_attribute a
           JOIN pg_catalog.pg_type y ON y.oid = a.atttypid
           WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
             AND NOT (a.attnotnull AND NOT EXISTS (
                 SELECT FROM pg_catalog.pg_constraint v
                 WHERE v.conrelid = a.attrelid AND v.contype = 'n' AND NOT v.convalidated
                   AND v.conkey[1] = a.attnum
             ) OR y.typnotnull)
       ) AS nullable,
       ARRAY(
           SELECT a.attname::text
           FROM pg_catalog.pg_attribute a
           WHERE a.attrelid = m.oid AND a.attnum > 0 AND NOT a.attisdropped
             AND (m.relreplident = 'f' OR EXISTS (
                 SELECT FROM pg_catalog.pg_index i
                 CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
                 WHERE i.indrelid = m.oid AND k.attnum = a.attnum AND k.place <= i.indnkeyatts
                   AND i.indisvalid
                   AND (m.relreplident = 'i' AND i.indisreplident
                        OR m.relreplident = 'd' AND i.indisprimary AND i.indimmediate)
             ))
       ) AS identity
FROM members s
JOIN pg_catalog.pg_class c ON c.oid = s.described
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_class m ON m.oid = s.oid
JOIN pg_catalog.pg_namespace ns ON ns.oid = m.relnamespace
ORDER BY 1, 2, m.oid <> c.oid, 3, 4
