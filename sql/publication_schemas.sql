-- How many schemas does a publication publish whole? (PostgreSQL 15 and later)
SELECT count(*)
FROM pg_catalog.pg_publication p
JOIN pg_catalog.pg_publication_namespace s ON s.pnpubid = p.oid
WHERE p.pubname = $1
