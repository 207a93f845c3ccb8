-- Which tables were put into a publication one by one? (Before PostgreSQL 15, which can publish
-- some of their columns and rows.) All of them, or the one with this OID ($2).
SELECT n.nspname::text, c.relname::text, NULL::text[] AS columns, NULL::oid AS filtered_by,
       '{}'::text[] AS condition_columns
FROM pg_catalog.pg_publication p
JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid
JOIN pg_catalog.pg_class c ON c.oid = r.prrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE p.pubname = $1 AND ($2::oid IS NULL OR c.oid = $2)
ORDER BY 1, 2
