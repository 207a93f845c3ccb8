-- Which tables were put into a publication one by one, with which columns (null for all), which entry of
-- the publication has a row filter (row_filters.sql says which one), and at which columns does that look?
-- Of one for all tables, which may have entries for what it leaves out, none. Read without locks.
-- All of them, or the one with this OID ($2). (PostgreSQL 15 and later)
SELECT n.nspname::text,
       c.relname::text,
       CASE WHEN r.prattrs IS NOT NULL THEN
           ARRAY(
               SELECT a.attname::text
               FROM pg_catalog.pg_attribute a
               WHERE a.attrelid = c.oid AND a.attnum = ANY (r.prattrs::int2[])
               ORDER BY a.attnum
           )
       END AS columns,
       CASE WHEN r.prqual IS NOT NULL THEN r.oid END AS filtered_by,
       -- A column is known by its number; the whole row, number 0, has no name.
       ARRAY(
           SELECT DISTINCT COALESCE(a.attname::text, '')
           FROM pg_catalog.regexp_matches(r.prqual::text, ':varattno (-?[0-9]+)', 'g') AS v (found)
           LEFT JOIN pg_catalog.pg_attribute a
               ON a.attrelid = c.oid AND a.attnum = v.found[1]::int2 AND a.attnum > 0
       ) AS condition_columns
FROM pg_catalog.pg_publication p
JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid
JOIN pg_catalog.pg_class c ON c.oid = r.prrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE p.pubname = $1 AND ($2::oid IS NULL OR c.oid = $2) AND NOT p.puballtables
ORDER BY 1, 2
