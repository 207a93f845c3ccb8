-- How large are these tables with all that is stored outside of their rows?
SELECT c.oid, pg_catalog.pg_table_size(c.oid)
FROM pg_catalog.pg_class c
WHERE c.oid = ANY ($1)
