-- Partitioned and inherited tables.
CREATE TABLE parts (id int, region text, n int, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE parts_north PARTITION OF parts FOR VALUES IN ('north');
CREATE TABLE parts_rest PARTITION OF parts DEFAULT;
INSERT INTO parts VALUES (1, 'north', 1), (2, 'south', 2);
UPDATE parts SET n = 10;
UPDATE parts SET region = 'west' WHERE id = 1;
DELETE FROM parts;
CREATE TABLE parts_late (n int, region text NOT NULL, extra int, id int NOT NULL, PRIMARY KEY (id, region));
ALTER TABLE parts_late DROP COLUMN extra;
ALTER TABLE parts ATTACH PARTITION parts_late FOR VALUES IN ('late');
INSERT INTO parts VALUES (3, 'late', 3);
DELETE FROM parts;
TRUNCATE parts;
CREATE TABLE base (id int PRIMARY KEY, a text);
CREATE TABLE derived (b int, PRIMARY KEY (id)) INHERITS (base);
INSERT INTO derived VALUES (1, 'x', 2);
UPDATE base SET a = 'y';
DELETE FROM base;
