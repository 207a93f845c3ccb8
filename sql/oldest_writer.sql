-- Have all transactions ended that began before $1? If not, who runs the oldest? That is hidden from
-- roles without the permission, and unknown for a prepared transaction.
SELECT pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::text::bigint
           >= $1::bigint AS have_ended,
       (SELECT pg_catalog.concat_ws(', ', 'pid ' || a.pid, 'database ' || a.datname,
                    'began ' || pg_catalog.date_trunc('second', a.xact_start)::text)
        FROM pg_catalog.pg_stat_activity a
        WHERE a.backend_xid IS NOT NULL AND a.pid <> pg_catalog.pg_backend_pid()
        ORDER BY pg_catalog.age(a.backend_xid) DESC
        LIMIT 1) AS oldest
