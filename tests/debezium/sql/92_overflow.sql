-- Timestamps that microseconds in 64 bits do not reach: Debezium's numbers wrap around.
CREATE TABLE stamps_overflow (id int PRIMARY KEY, t timestamp, t3 timestamp(3));
INSERT INTO stamps_overflow VALUES (7, '294276-12-31 23:59:59.999999', '294276-12-31 23:59:59.999');
