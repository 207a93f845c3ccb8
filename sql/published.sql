-- The beginning of a query: which tables do these publications ($1) publish in effect? A partitioned
-- table is either its root or its partitions, as the publication has it. This is what
-- pg_publication_tables shows, read without locks: that view opens each table from PostgreSQL 16 on, and
-- so waits for whoever alters one of them. (PostgreSQL 15 and later)
WITH RECURSIVE named (pub, via_root, oid) AS (
    SELECT p.oid, p.pubviaroot, r.prrelid
    FROM pg_catalog.pg_publication p
    JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid
    -- Of one for all tables these are the tables that it leaves out (PostgreSQL 19).
    WHERE p.pubname = ANY ($1::text[]) AND NOT p.puballtables
    UNION
    SELECT p.oid, p.pubviaroot, c.oid
    FROM pg_catalog.pg_publication p
    JOIN pg_catalog.pg_publication_namespace s ON s.pnpubid = p.oid
    JOIN pg_catalog.pg_class c ON c.relnamespace = s.pnnspid
    WHERE p.pubname = ANY ($1::text[]) AND c.relkind IN ('r', 'p') AND c.relpersistence = 'p'
    UNION
    SELECT p.oid, p.pubviaroot, c.oid
    FROM pg_catalog.pg_publication p
    JOIN pg_catalog.pg_class c
        ON c.relkind = 'r' OR c.relkind = 'p' AND p.pubviaroot AND NOT c.relispartition
    -- The system's own tables have OIDs below.
    WHERE p.pubname = ANY ($1::text[]) AND p.puballtables
      AND c.oid >= 16384 AND c.relpersistence = 'p'
      AND NOT EXISTS (
          SELECT
          FROM pg_catalog.pg_publication_rel x
          WHERE x.prpubid = p.oid AND (
              x.prrelid = c.oid
              OR c.relispartition
                  AND x.prrelid IN (SELECT a.relid FROM pg_catalog.pg_partition_ancestors(c.oid) a)
          )
      )
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
    SELECT m.pub,
           m.oid,
           CASE
               WHEN r.prattrs IS NOT NULL THEN
                   ARRAY(
                       SELECT a.attname::text
                       FROM pg_catalog.pg_attribute a
                       WHERE a.attrelid = m.oid AND a.attnum = ANY (r.prattrs::int2[])
                       ORDER BY a.attnum
                   )
               -- Stored generated columns, too: PostgreSQL 18 and later.
               WHEN pg_catalog.to_jsonb(p) ->> 'pubgencols' = 's' THEN
                   ARRAY(
                       SELECT a.attname::text
                       FROM pg_catalog.pg_attribute a
                       WHERE a.attrelid = m.oid AND a.attnum > 0 AND NOT a.attisdropped
                         AND a.attgenerated IN ('', 's')
                       ORDER BY a.attnum
                   )
           END,
           CASE WHEN r.prqual IS NOT NULL THEN r.oid END
    FROM member m
    JOIN pg_catalog.pg_publication p ON p.oid = m.pub
    -- Of a schema that is published whole, the server ignores the lists and filters of single tables.
    LEFT JOIN pg_catalog.pg_publication_rel r ON r.prpubid = m.pub AND r.prrelid = m.oid
        AND NOT p.puballtables
        AND NOT EXISTS (
            SELECT
            FROM pg_catalog.pg_class c
            JOIN pg_catalog.pg_publication_namespace s ON s.pnnspid = c.relnamespace
            WHERE c.oid = m.oid AND s.pnpubid = m.pub
        )
    WHERE CASE WHEN m.via_root
        THEN NOT EXISTS (
            SELECT
            FROM pg_catalog.pg_partition_ancestors(m.oid) a
            JOIN named n ON n.oid = a.relid
            WHERE n.pub = m.pub AND n.oid <> m.oid
        )
        ELSE m.relkind <> 'p' END
)
