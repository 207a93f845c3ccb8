-- How does the server write the row filters of these entries of publications? The parameter is for an
-- array of their OIDs, as SQL. (It is replaced here.) From PostgreSQL 17 on this locks the tables, as who
-- reads them does.
SELECT r.oid, pg_catalog.pg_get_expr(r.prqual, r.prrelid)
FROM pg_catalog.pg_publication_rel r
WHERE r.oid = ANY ($1)
