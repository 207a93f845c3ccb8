-- Is this slot, on a standby, a copy of the primary's?
SELECT COALESCE((pg_catalog.to_jsonb(slot) ->> 'synced')::boolean, false)
FROM pg_catalog.pg_replication_slots AS slot
WHERE slot.slot_name = $1 AND pg_catalog.pg_is_in_recovery()
