-- Which slots of standbys make this server hold back logical changes, although nobody reads from them?
-- The setting exists from version 17 on.
SELECT coalesce(pg_catalog.string_agg(wanted.name, ', '), '')
FROM (
    SELECT pg_catalog.btrim(part, ' "') AS name
    FROM pg_catalog.unnest(pg_catalog.string_to_array(
        pg_catalog.current_setting('synchronized_standby_slots', true), ',')) AS part
) AS wanted
WHERE wanted.name <> '' AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_replication_slots AS slot
    WHERE slot.slot_name = wanted.name AND slot.active
)
