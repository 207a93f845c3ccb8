-- A commit that only its walsender sees; it waits for no standby.
BEGIN;
SET LOCAL synchronous_commit = local;
SELECT pg_catalog.pg_logical_emit_message(true, 'rowcast.probe', '');
COMMIT
