-- What are the names of the columns of these tables, by number?
SELECT a.attrelid, a.attnum, a.attname::text
FROM pg_catalog.pg_attribute a
WHERE a.attrelid = ANY($1::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
