-- What the snapshot finds beside the rows that the script leaves. `-- again TABLE`: the script's
-- INSERTs into a table that it empties, once more.
-- again binary_keys
-- again by_index
-- again by_index_keyless
-- again defaults
-- again fillers
-- again fillers_defaults
-- again generated
-- again mood_keys
-- again numeric_keys
-- again primary_include
-- again text_keys
-- again time_keys
-- again toast
-- again toast_key
-- again toast_whole
-- again uuids
-- again whole
-- again whole_keyless
-- again whole_unique
INSERT INTO plain VALUES (1, 'one', 1), (2, 'two', 2), (3, NULL, NULL);
UPDATE plain SET n = 10 WHERE id = 1;
DELETE FROM plain WHERE id = 3;
INSERT INTO two_keys VALUES (1, 'note', 'x'), (2, NULL, 'x'), (1, '', 'y');
INSERT INTO keyless VALUES (1, 'no key'), (1, 'no key'), (NULL, NULL);
INSERT INTO "Odd Schema"."Odd Table" VALUES (1, 2, 'three', 'four', 5, 6), (2, NULL, NULL, NULL, NULL, NULL);
INSERT INTO base VALUES (1, 'of the parent');
INSERT INTO derived VALUES (2, 'of the child', 3);
INSERT INTO parts VALUES (1, 'north', 1), (2, 'south', 2), (3, 'late', 3);
CREATE TABLE zones (id int, region text, n int, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE zones_east PARTITION OF zones FOR VALUES IN ('east') PARTITION BY RANGE (id);
CREATE TABLE zones_east_low PARTITION OF zones_east FOR VALUES FROM (0) TO (10);
CREATE TABLE zones_east_high PARTITION OF zones_east FOR VALUES FROM (10) TO (20);
CREATE TABLE zones_rest PARTITION OF zones DEFAULT;
INSERT INTO zones VALUES (1, 'east', 1), (11, 'east', NULL), (1, 'west', 2);
CREATE TABLE large (id int PRIMARY KEY, note text, raw bytea, numbers int[]);
INSERT INTO large VALUES (1, repeat('packed ', 20000), decode(repeat('00ff', 30000), 'hex'), array_fill(7, ARRAY[20000]));
INSERT INTO large VALUES (2, NULL, NULL, NULL), (3, '', '', '{}');
CREATE TABLE large_outside (id int PRIMARY KEY, note text, more text);
ALTER TABLE large_outside ALTER note SET STORAGE EXTERNAL, ALTER more SET STORAGE EXTERNAL;
INSERT INTO large_outside SELECT n, repeat('é', 50000), repeat(n::text, 3000) FROM generate_series(1, 3) n;
UPDATE large_outside SET more = 'short' WHERE id = 2;
CREATE TABLE many (id int PRIMARY KEY, note text) WITH (fillfactor = 10);
INSERT INTO many SELECT n, repeat('n', 380) FROM generate_series(1, 1000) n;
CREATE TABLE no_rows (id int PRIMARY KEY, note text);
-- A table without columns ends Debezium's snapshot.
DROP TABLE empty;
