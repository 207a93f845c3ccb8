-- Which columns of a table are never null?
SELECT attname::text
FROM pg_catalog.pg_attribute
WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped AND attnotnull
ORDER BY attnum
