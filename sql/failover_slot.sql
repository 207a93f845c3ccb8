-- Is this slot a failover slot, and does a standby synchronise it, as far as the primary knows? Such a
-- standby has a connection that reads the slots: under its own name, or under that of its walreceiver.
SELECT COALESCE((pg_catalog.to_jsonb(slot) ->> 'failover')::boolean, false) AS is_failover,
       EXISTS (
           SELECT FROM pg_catalog.pg_stat_activity AS session
           WHERE (pg_catalog.right(session.application_name, 15) = 'slotsync worker'
                  OR session.application_name IN (
                      SELECT standby.application_name
                      FROM pg_catalog.pg_stat_replication AS standby
                      JOIN pg_catalog.pg_replication_slots AS held ON held.active_pid = standby.pid
                      WHERE held.slot_type = 'physical' AND standby.application_name <> ''
                  ))
             AND session.pid NOT IN (SELECT pid FROM pg_catalog.pg_stat_replication)
       ) AS is_asked_for
FROM pg_catalog.pg_replication_slots AS slot
WHERE slot.slot_name = $1 AND NOT pg_catalog.pg_is_in_recovery()
