-- Enums, domains, composites, and types of extensions.
CREATE TABLE moods (id int PRIMARY KEY, a mood, b mood DEFAULT 'glad', c mood NOT NULL DEFAULT 'calm', e mood[]);
INSERT INTO moods VALUES (1, 'calm', 'so "so"', 'ça va', '{calm,glad}');
INSERT INTO moods VALUES (2, NULL, NULL, 'glad', NULL);
INSERT INTO moods (id) VALUES (3);
-- wait
ALTER TYPE mood ADD VALUE 'new one' BEFORE 'glad';
INSERT INTO moods VALUES (4, 'new one', 'calm', 'calm', '{}');
INSERT INTO moods VALUES (5, 'calm', 'calm', 'calm', '{}');
-- wait
CREATE TYPE dull AS ENUM ('only');
CREATE TABLE mood_keys (a dull PRIMARY KEY, n int);
INSERT INTO mood_keys VALUES ('only', 1);
DELETE FROM mood_keys;
CREATE TABLE domains (id small_positive PRIMARY KEY, a positive, b small_positive, c price, d list_price, e any_number, f short_text, g instant, h tags, i millis);
INSERT INTO domains VALUES (1, 7, 8, 16.5, 17.25, 2.50, 'abc', '2024-03-01 08:15:30.123+00', '{a,b}', '2024-03-01 08:15:30.123');
INSERT INTO domains (id) VALUES (2);
CREATE TABLE composites (id int PRIMARY KEY, home address, note text, flagged positive);
INSERT INTO composites VALUES (1, ROW('Main "St", 1', 10001), 'kept', 1);
INSERT INTO composites VALUES (2, NULL, 'null', NULL);
CREATE TABLE hstores (id int PRIMARY KEY, attributes hstore);
INSERT INTO hstores VALUES (1, 'a=>1, b=>"two words", c=>NULL');
INSERT INTO hstores VALUES (2, '');
INSERT INTO hstores VALUES (3, NULL);
INSERT INTO hstores VALUES (4, hstore('quote " back \', 'tab	é世🚕'));
INSERT INTO hstores VALUES (5, '"NULL"=>"NULL", ""=>"", "k,=>"=>"=>,"');
CREATE TABLE ltrees (id int PRIMARY KEY, a ltree, b lquery, c ltxtquery);
INSERT INTO ltrees VALUES (1, 'Top.Science.Astronomy', 'Top.*', 'Science & Astro*');
INSERT INTO ltrees VALUES (2, NULL, NULL, NULL);
INSERT INTO ltrees VALUES (3, '', NULL, NULL);
