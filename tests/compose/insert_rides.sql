-- Inserts :rides rides, half of them in one transaction, half in one each; prints their ride_ids.
INSERT INTO rides (pickup_zone_id, dropoff_zone_id, status, requested_at)
SELECT 1, 2, 'requested', now() FROM generate_series(1, :rides / 2)
RETURNING ride_id;

SELECT $$
    INSERT INTO rides (pickup_zone_id, dropoff_zone_id, status, requested_at)
    VALUES (1, 2, 'requested', now()) RETURNING ride_id
$$ FROM generate_series(1, :rides - :rides / 2) \gexec
