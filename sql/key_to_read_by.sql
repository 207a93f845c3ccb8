-- By the columns of which index could a table be read, in its order, and its rows be distinguished
-- in the stream? Of a unique index without nulls, whose order is that of the columns themselves,
-- and whose columns old rows carry, in the table and in each of its partitions. With the types as
-- which the columns are compared (of a column whose operators take many types, its own), as written
-- in SQL wherever it looks for names, and the schemas of the operators that compare them. From
-- PostgreSQL 18 on, a column that is NOT NULL may hold nulls until the constraint is validated.
WITH RECURSIVE tree (oid, relkind, relreplident) AS (
    SELECT c.oid, c.relkind, c.relreplident
    FROM pg_catalog.pg_class c
    WHERE c.oid = $1
    UNION ALL
    SELECT c.oid, c.relkind, c.relreplident
    FROM tree t
    JOIN pg_catalog.pg_inherits i ON i.inhparent = t.oid AND NOT i.inhdetachpending
    JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
    WHERE t.relkind = 'p'
),
members AS (
    SELECT t.oid, t.relreplident FROM tree t WHERE t.relkind <> 'p'
),
identities AS (
    SELECT m.oid, a.attname
    FROM members m
    JOIN pg_catalog.pg_attribute a
        ON a.attrelid = m.oid AND a.attnum > 0 AND NOT a.attisdropped
    -- If old rows are not sent, rows can't be updated or deleted, or that is not published.
    WHERE m.relreplident IN ('f', 'n')
       OR EXISTS (
           SELECT FROM pg_catalog.pg_index i
           CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
           WHERE i.indrelid = m.oid AND k.attnum = a.attnum AND k.place <= i.indnkeyatts
             AND (m.relreplident = 'i' AND i.indisreplident
                  OR m.relreplident = 'd' AND i.indisprimary AND i.indimmediate)
       )
)
SELECT array_agg(a.attname::text ORDER BY k.place) AS columns,
       array_agg(pg_catalog.format('%I.%I', tn.nspname, t.typname) ORDER BY k.place) AS types,
       array_agg(n.nspname::text ORDER BY k.place) AS schemas
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
JOIN pg_catalog.pg_opclass o ON o.oid = i.indclass[k.place::int - 1]
JOIN pg_catalog.pg_amop p
    ON p.amopfamily = o.opcfamily AND p.amopstrategy = 5
   AND p.amoplefttype = o.opcintype AND p.amoprighttype = o.opcintype
JOIN pg_catalog.pg_operator g ON g.oid = p.amopopr
JOIN pg_catalog.pg_namespace n ON n.oid = g.oprnamespace
JOIN pg_catalog.pg_type ct ON ct.oid = a.atttypid
JOIN pg_catalog.pg_type ot ON ot.oid = o.opcintype
JOIN pg_catalog.pg_type t
    ON t.oid = CASE
        WHEN ot.typtype <> 'p' THEN ot.oid
        WHEN ct.typtype = 'd' THEN ct.typbasetype
        ELSE ct.oid
    END
JOIN pg_catalog.pg_namespace tn ON tn.oid = t.typnamespace
WHERE i.indrelid = $1
  AND i.indisunique
  AND i.indisvalid
  AND i.indpred IS NULL
  AND i.indexprs IS NULL
  AND k.place <= i.indnkeyatts
GROUP BY i.indexrelid, i.indisprimary, i.indisreplident, i.indnkeyatts, c.relname
HAVING count(*) = i.indnkeyatts
   AND bool_and(a.attnotnull AND NOT EXISTS (
       SELECT FROM pg_catalog.pg_constraint v
       WHERE v.conrelid = a.attrelid AND v.contype = 'n' AND NOT v.convalidated
         AND v.conkey[1] = a.attnum
   ))
   AND bool_and(o.opcdefault)
   AND bool_and(i.indcollation[k.place::int - 1] = a.attcollation)
   AND bool_and(NOT EXISTS (
       SELECT FROM members m
       WHERE NOT EXISTS (
           SELECT FROM identities d WHERE d.oid = m.oid AND d.attname = a.attname
       )
   ))
ORDER BY i.indisprimary DESC, i.indisreplident DESC, i.indnkeyatts, c.relname
LIMIT 1
