-- Is a table in one of these publications, by its name, its root, its schema, or because all are? And what of it?
-- (PostgreSQL 15 and later)
SELECT attnames::text[], rowfilter
FROM pg_catalog.pg_publication_tables
WHERE pubname = ANY ($1::text[]) AND schemaname = $2 AND tablename = $3
