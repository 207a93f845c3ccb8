-- The beginning of a query: which tables do these publications ($1) publish in effect? As published.sql,
-- before PostgreSQL 15, which can publish whole schemas, and some columns and rows of a table.
WITH RECURSIVE named (pub, via_root, oid) AS (
    SELECT p.oid, p.pubviaroot, r.prrelid
    FROM pg_catalog.pg_publication p
    JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid
    WHERE p.pubname = ANY ($1::text[])
    UNION
    SELECT p.oid, p.pubviaroot, c.oid
    FROM pg_catalog.pg_publication p
    JOIN pg_catalog.pg_class c
        ON c.relkind = 'r' OR c.relkind = 'p' AND p.pubviaroot AND NOT c.relispartition
    -- The system's own tables have OIDs below.
    WHERE p.pubname = ANY ($1::text[]) AND p.puballtables
      AND c.oid >= 16384 AND c.relpersistence = 'p'
),
member (pub, via_root, oid, relkind) AS (
    SELECT n.pub, n.via_root, c.oid, c.relkind
    FROM named n
    JOIN pg_catalog.pg_class c ON c.oid = n.oid
    UNION
    SELECT m.pub, m.via_root, c.oid, c.relkind
    FROM member m
    JOIN pg_catalog.pg_inherits i ON i.inhparent = m.oid AND NOT i.inhdetachpending
    JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
    WHERE m.relkind = 'p' AND NOT m.via_root
),
published (pub, oid, attnames, filtered_by) AS (
    SELECT m.pub, m.oid, NULL::text[], NULL::oid
    FROM member m
    WHERE CASE WHEN m.via_root
        THEN NOT EXISTS (
            SELECT
            FROM pg_catalog.pg_partition_ancestors(m.oid) a
            JOIN named n ON n.oid = a.relid
            WHERE n.pub = m.pub AND n.oid <> m.oid
        )
        ELSE m.relkind <> 'p' END
)
