-- Which transactions does this transaction's snapshot show, and as of when?
SELECT pg_catalog.pg_current_snapshot()::text AS shows,
       (extract(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::bigint AS time_us
