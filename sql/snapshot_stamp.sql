-- What does this transaction's snapshot show: up to which transaction everything, and as of when?
SELECT pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::text AS xmin,
       (extract(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::bigint AS time_us
