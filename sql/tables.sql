-- Which tables could be published? Ordinary tables and partitioned ones, each partition through
-- its root; none of the system's, none that write no WAL. One row for each table that holds rows of
-- it (itself, or a partition at the end of the tree), and one for a partitioned table itself, with
-- all that Postgres looks at when a published row is updated or deleted there. Read without locks:
-- an ALTER TABLE of the application neither waits for this nor holds it up. All of them, or the one with
-- this OID ($1).
WITH RECURSIVE member (root, oid, relkind) AS (
    SELECT c.oid, c.oid, c.relkind
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p')
      AND NOT c.relispartition
      AND c.relpersistence = 'p'
      AND n.nspname <> 'information_schema'
      AND n.nspname NOT LIKE 'pg\_%'
      AND ($1::oid IS NULL OR c.oid = $1)
    UNION ALL
    SELECT m.root, c.oid, c.relkind
    FROM member m
    JOIN pg_catalog.pg_inherits i ON i.inhparent = m.oid
    JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
    WHERE m.relkind = 'p'
)
SELECT m.root,
       rn.nspname::text AS root_schema,
       r.relname::text AS root_name,
       pg_catalog.pg_has_role(r.relowner, 'USAGE') AS is_owned,
       pg_catalog.pg_get_userbyid(r.relowner)::text AS owner,
       n.nspname::text AS schema,
       c.relname::text AS name,
       m.relkind = 'r' AND c.relpersistence = 'p' AS has_rows,
       c.relreplident = 'f' AS is_full,
       identity.columns AS identity,
       ARRAY(
           SELECT a.attname::text FROM pg_catalog.pg_attribute a
           WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
             AND a.attgenerated <> ''
           ORDER BY a.attnum
       ) AS generated,
       EXISTS (
           SELECT FROM pg_catalog.pg_attribute a
           WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
             AND a.attgenerated = 'v'
       ) AS has_virtual,
       usable.name AS usable_index,
       COALESCE(usable.is_primary, false) AS usable_is_primary,
       EXISTS (
           SELECT FROM pg_catalog.pg_index i
           WHERE i.indrelid = c.oid AND i.indisprimary AND NOT i.indimmediate
       ) AS has_deferrable_key
FROM member m
JOIN pg_catalog.pg_class c ON c.oid = m.oid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_class r ON r.oid = m.root
JOIN pg_catalog.pg_namespace rn ON rn.oid = r.relnamespace
-- The index that Postgres takes as the replica identity (RelationGetIndexList in its source).
LEFT JOIN LATERAL (
    SELECT ARRAY(
               SELECT a.attname::text
               FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
               JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
               WHERE k.place <= i.indnkeyatts
               ORDER BY k.place
           ) AS columns
    FROM pg_catalog.pg_index i
    WHERE i.indrelid = c.oid
      AND i.indislive AND i.indisvalid AND i.indisunique AND i.indimmediate
      AND i.indpred IS NULL
      AND (c.relreplident = 'd' AND i.indisprimary OR c.relreplident = 'i' AND i.indisreplident)
    LIMIT 1
) identity ON true
-- The index that could be it: the primary key, else the first by name.
LEFT JOIN LATERAL (
    SELECT x.relname::text AS name, i.indisprimary AS is_primary
    FROM pg_catalog.pg_index i
    JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
    WHERE i.indrelid = c.oid
      AND i.indislive AND i.indisvalid AND i.indisunique AND i.indimmediate
      AND i.indpred IS NULL AND i.indexprs IS NULL
      AND NOT EXISTS (
          SELECT FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
          JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
          WHERE k.place <= i.indnkeyatts
            AND (NOT a.attnotnull OR a.attgenerated <> '' OR EXISTS (
                -- NOT NULL, but not of all rows (PostgreSQL 18 and later).
                SELECT FROM pg_catalog.pg_constraint v
                WHERE v.conrelid = a.attrelid AND v.contype = 'n' AND NOT v.convalidated
                  AND v.conkey[1] = a.attnum
            ))
      )
    ORDER BY i.indisprimary DESC, x.relname
    LIMIT 1
) usable ON true
WHERE m.relkind = 'r' OR m.oid = m.root
ORDER BY 2, 3, 6, 7
