-- Inserts :rides rides, half of them in one transaction, half in one each; prints their ride_ids.
INSERT INTO rides (vendor, status, pickup_zone_id, dropoff_zone_id, passengers, requested_at)
SELECT 'psql', 'requested', min(zone_id), max(zone_id), 1, now()
FROM zones, generate_series(1, :rides / 2) AS ride
GROUP BY ride
RETURNING ride_id;

SELECT $$
    INSERT INTO rides (vendor, status, pickup_zone_id, dropoff_zone_id, passengers, requested_at)
    SELECT 'psql', 'requested', min(zone_id), max(zone_id), 1, now() FROM zones
    RETURNING ride_id
$$ FROM generate_series(1, :rides - :rides / 2) \gexec
