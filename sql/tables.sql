-- Which tables could be published? Ordinary tables and partitioned ones, each partition through
-- its root; none of the system's, none that write no WAL. With what the role may do to them, and
-- whether an UPDATE or DELETE of a published row would be refused for want of an identity.
SELECT n.nspname::text AS schema,
       c.relname::text AS name,
       pg_catalog.pg_has_role(c.relowner, 'USAGE') AS is_owned,
       pg_catalog.pg_get_userbyid(c.relowner)::text AS owner,
       c.relreplident = 'f'
           OR EXISTS (
               SELECT FROM pg_catalog.pg_index i
               WHERE i.indrelid = c.oid
                 AND (i.indisreplident OR (c.relreplident = 'd' AND i.indisprimary))
           ) AS has_identity
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p')
  AND NOT c.relispartition
  AND c.relpersistence = 'p'
  AND n.nspname <> 'information_schema'
  AND n.nspname NOT LIKE 'pg\_%'
ORDER BY 1, 2
