-- What does this transaction see, and what is the table like that it reads? The first parameter is used
-- for the table's name in SQL, as a text, the second for the OID of the partition that is read of it, or
-- NULL. (They are replaced here, so they are not named in this comment.) Another answer than before to
-- the second question says that the table was altered, or the partition detached.
SELECT pg_catalog.pg_current_snapshot()::text,
       (SELECT pg_catalog.concat_ws(' ', c.oid, c.relkind, c.relreplident,
            (SELECT pg_catalog.string_agg(
                 pg_catalog.concat_ws(':', a.attname, a.atttypid, a.atttypmod, a.attnotnull,
                     EXISTS (
                         SELECT FROM pg_catalog.pg_constraint v
                         WHERE v.conrelid = a.attrelid AND v.contype = 'n' AND NOT v.convalidated
                           AND v.conkey[1] = a.attnum
                     )), ','
                 ORDER BY a.attnum)
             FROM pg_catalog.pg_attribute a
             WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
            (SELECT pg_catalog.string_agg(
                 pg_catalog.concat_ws(':', i.indexrelid, i.indisreplident, i.indisvalid), ','
                 ORDER BY i.indexrelid)
             FROM pg_catalog.pg_index i
             WHERE i.indrelid = c.oid AND i.indisunique),
            (SELECT pg_catalog.string_agg(pg_catalog.to_jsonb(r)::text, ',' ORDER BY r.oid)
             FROM pg_catalog.pg_publication_rel r
             WHERE r.prrelid = c.oid),
            (SELECT pg_catalog.string_agg(a.relid::oid::text, ',')
             FROM pg_catalog.pg_partition_ancestors($2::oid::regclass) a))
        FROM pg_catalog.pg_class c
        WHERE c.oid = pg_catalog.to_regclass($1))
