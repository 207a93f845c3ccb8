-- The end of a query that begins with published.sql: which partitions have the partitioned tables
-- that these publications ($1) publish, under which root, and which of them may hold rows that
-- never were in the stream? Those that were attached by a transaction that the snapshot $2 does not
-- see (null: none is looked for), by themselves or with the partitioned table that they belong to.
-- One that was created as a partition began empty: ATTACH writes again all columns' entries in the
-- catalog, so an entry that is as old as the table says that it never was attached. Waits for no
-- lock. One row at least, so that it is known what was seen.
, now AS (
    SELECT pg_catalog.pg_current_snapshot() AS shows,
           pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text::numeric AS next
),
held AS (
    SELECT c.oid, c.relkind, c.relispartition
    FROM published p
    JOIN pg_catalog.pg_class c ON c.oid = p.oid
),
edges AS (
    SELECT i.inhparent AS parent,
           i.inhrelid AS oid,
           x.is_new,
           CASE WHEN x.is_new THEN NOT EXISTS (
               SELECT
               FROM pg_catalog.pg_attribute a
               JOIN pg_catalog.pg_attribute s ON s.attrelid = a.attrelid AND s.attnum = -1
               WHERE a.attrelid = i.inhrelid AND a.attnum > 0 AND NOT a.attisdropped
                 AND a.xmin = s.xmin AND a.cmin = s.cmin
           ) ELSE false END AS is_attached
    FROM pg_catalog.pg_inherits i
    JOIN pg_catalog.pg_class p ON p.oid = i.inhparent AND p.relkind = 'p'
    CROSS JOIN now
    CROSS JOIN LATERAL (
        -- A transaction ID in a row has 32 bits: the last one of those that there were is meant.
        SELECT COALESCE(
            NOT pg_catalog.pg_visible_in_snapshot(
                trunc(now.next - mod(now.next - i.xmin::text::numeric, 4294967296))::text::xid8,
                $2::text::pg_snapshot
            ),
            false
        )
    ) AS x (is_new)
    WHERE NOT i.inhdetachpending
),
tree AS (
    SELECT r.oid AS root, r.oid, false AS is_new, false AS is_attached
    FROM (
        SELECT oid FROM held WHERE relkind = 'p'
        UNION
        SELECT pg_catalog.pg_partition_root(oid) FROM held WHERE relispartition
    ) r
    UNION ALL
    SELECT t.root,
           e.oid,
           t.is_new OR e.is_new,
           t.is_attached OR e.is_attached
    FROM tree t
    JOIN edges e ON e.parent = t.oid
),
leaves AS (
    SELECT DISTINCT ON (c.oid)
           t.root, c.oid, t.is_new, t.is_attached, n.nspname, c.relname, c.reltuples
    FROM tree t
    JOIN pg_catalog.pg_class c ON c.oid = t.oid AND c.relkind = 'r'
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE t.root IN (SELECT oid FROM held) OR t.oid IN (SELECT oid FROM held)
    ORDER BY c.oid, t.root
)
SELECT now.shows::text,
       r.oid AS root,
       rn.nspname::text,
       r.relname::text,
       l.oid,
       l.nspname::text,
       l.relname::text,
       l.is_new,
       l.is_attached,
       l.reltuples::float8,
       COALESCE(pg_catalog.pg_relation_filenode(l.oid), 0::oid),
       COALESCE(pg_catalog.pg_stat_get_live_tuples(l.oid), 0)
FROM now
LEFT JOIN (
    (SELECT DISTINCT root FROM tree) t
    JOIN pg_catalog.pg_class r ON r.oid = t.root
    JOIN pg_catalog.pg_namespace rn ON rn.oid = r.relnamespace
) ON true
LEFT JOIN leaves l ON l.root = r.oid
