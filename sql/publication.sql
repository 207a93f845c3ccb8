-- Does a publication exist, does it publish everything, may the role change it, which kinds of
-- changes does it publish, and are those of partitions their root's?
SELECT p.puballtables, pg_catalog.pg_has_role(p.pubowner, 'USAGE') AS is_owned,
       pg_catalog.pg_get_userbyid(p.pubowner)::text AS owner,
       p.pubinsert, p.pubupdate, p.pubdelete, p.pubtruncate, p.pubviaroot,
       -- From PostgreSQL 18 on.
       COALESCE(pg_catalog.to_jsonb(p) ->> 'pubgencols' = 's', false) AS generated
FROM pg_catalog.pg_publication p
WHERE p.pubname = $1
