-- Can this role stream from this server? Returns the role's name, whether it may replicate and create
-- publications, and how many slots and walsenders are left. Managed services grant replication through
-- membership in a special role. Slots of REPACK (version 19 and later) are counted separately.
SELECT current_user::text AS role,
       current_database()::text AS database,
       current_setting('wal_level') AS wal_level,
       (SELECT r.rolsuper OR r.rolreplication
               OR EXISTS (
                   SELECT FROM pg_catalog.pg_roles m
                   WHERE m.rolname IN ('rds_replication', 'rds_superuser')
                     AND pg_catalog.pg_has_role(r.oid, m.oid, 'MEMBER')
               )
        FROM pg_catalog.pg_roles r
        WHERE r.rolname = current_user) AS can_replicate,
       pg_catalog.has_database_privilege(current_database(), 'CREATE') AS can_create,
       current_setting('max_replication_slots')::int
           - (SELECT count(*) FROM pg_catalog.pg_replication_slots s
              WHERE s.plugin IS DISTINCT FROM 'pgrepack')::int AS free_slots,
       current_setting('max_replication_slots')::int AS max_slots,
       current_setting('max_wal_senders')::int AS max_walsenders,
       current_setting('server_version_num')::int AS version
