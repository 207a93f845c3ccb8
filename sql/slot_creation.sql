-- Is this server process still creating our slot, and which transactions does it wait for? Returns no
-- row once it is gone. It waits for one transaction at a time; pid 0 means a prepared one. For roles
-- whose activity this role may not see, only the names are returned.
SELECT
    maker.state IS NOT DISTINCT FROM 'active' AS is_at_work,
    blocking.pid,
    coalesce(activity.usename, prepared.owner)::text,
    activity.application_name,
    coalesce(activity.datname, prepared.database)::text,
    activity.state,
    (extract(epoch FROM clock_timestamp() - coalesce(activity.xact_start, prepared.prepared)))::bigint,
    (extract(epoch FROM clock_timestamp() - activity.query_start))::bigint,
    prepared.gid
FROM pg_catalog.pg_stat_activity AS maker
LEFT JOIN LATERAL unnest(pg_catalog.pg_blocking_pids(maker.pid)) AS blocking (pid) ON true
LEFT JOIN pg_catalog.pg_stat_activity AS activity ON activity.pid = blocking.pid
LEFT JOIN pg_catalog.pg_prepared_xacts AS prepared
    ON blocking.pid = 0
    AND prepared.transaction IN (
        SELECT lock.transactionid FROM pg_catalog.pg_locks AS lock
        WHERE lock.pid = maker.pid AND lock.locktype = 'transactionid' AND NOT lock.granted
    )
WHERE maker.pid = $1 AND maker.backend_start = $2::text::timestamptz
ORDER BY 7 DESC NULLS LAST
LIMIT 1
