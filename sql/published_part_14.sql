-- Is a table in one of these publications, by its name, its root, its schema, or because all are? (Before
-- PostgreSQL 15, which can publish some of its columns and rows.)
SELECT NULL::text[] AS attnames, NULL::text AS rowfilter
FROM pg_catalog.pg_publication_tables
WHERE pubname = ANY ($1::text[]) AND schemaname = $2 AND tablename = $3
