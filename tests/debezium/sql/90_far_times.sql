-- Timestamps that nanoseconds in 64 bits do not reach.
CREATE TABLE stamps_old (id int PRIMARY KEY, t timestamp, t0 timestamp(0), t3 timestamp(3), t6 timestamp(6));
INSERT INTO stamps_old VALUES (4, '0001-01-01', '0001-01-01', '0001-01-01', '0001-01-01');
INSERT INTO stamps_old VALUES (5, '1582-10-10 12:00', '1582-10-10 12:00', '1582-10-10 12:00', '1582-10-10 12:00');
CREATE TABLE stamps_far (id int PRIMARY KEY, t timestamp, t3 timestamp(3));
INSERT INTO stamps_far VALUES (1, 'infinity', 'infinity');
INSERT INTO stamps_far VALUES (2, '-infinity', '-infinity');
INSERT INTO stamps_far VALUES (3, '0044-03-15 12:00:00 BC', '0044-03-15 12:00:00 BC');
INSERT INTO stamps_far VALUES (4, '4713-01-01 00:00:00 BC', '4713-01-01 00:00:00 BC');
INSERT INTO stamps_far VALUES (5, '12345-06-07 08:09:10.5', '12345-06-07 08:09:10.5');
INSERT INTO stamps_far VALUES (6, '294247-01-10 04:00:54.775806', '294247-01-10 04:00:54.775');
INSERT INTO stamps_far VALUES (8, '9999-12-31 23:59:59.999999', '9999-12-31 23:59:59.999');
INSERT INTO stamps_far VALUES (9, '2024-03-01 08:15:30', '2024-03-01 08:15:30');
