-- Does a publication exist, does it publish everything, and may the role change it?
SELECT p.puballtables, pg_catalog.pg_has_role(p.pubowner, 'USAGE') AS is_owned,
       pg_catalog.pg_get_userbyid(p.pubowner)::text AS owner
FROM pg_catalog.pg_publication p
WHERE p.pubname = $1
