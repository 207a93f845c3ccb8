-- Which of these tables are no longer in the catalog? Also returns the transactions that this query
-- sees, and a position in the WAL after all of them: null on a standby, where a commit is visible
-- before it counts as replayed.
SELECT pg_catalog.pg_current_snapshot()::text,
       ARRAY(SELECT asked.oid
             FROM pg_catalog.unnest($1::pg_catalog.oid[]) AS asked (oid)
             WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) asked.oid)),
       CASE WHEN pg_catalog.pg_is_in_recovery() THEN NULL
            ELSE pg_catalog.pg_current_wal_insert_lsn() END::text
