-- Makes every message and every kind of value that pgoutput sends, for tests/golden/capture.sh.
CREATE TYPE mood AS ENUM ('calm', 'so "so"');
CREATE DOMAIN positive AS integer CHECK (VALUE > 0);
CREATE TABLE kinds (
    id bigint PRIMARY KEY, flag boolean, small smallint, big bigint, real4 real, real8 double precision,
    num numeric, num2 numeric(10,2), day date, clock time, clocktz timetz, moment timestamp,
    momenttz timestamptz, span interval, raw bytea, doc json, docb jsonb, words text[],
    numbers integer[], moments timestamptz[], docs jsonb[], boxes box[], mood mood, moods mood[],
    pos positive, uid uuid, note text, addr inet, rng int4range, cash money, bits bit(3)
);
CREATE TABLE toasted (id integer PRIMARY KEY, doc text, n integer);
ALTER TABLE toasted ALTER doc SET STORAGE EXTERNAL;
CREATE TABLE whole (id integer PRIMARY KEY, doc text, n integer);
ALTER TABLE whole ALTER doc SET STORAGE EXTERNAL;
ALTER TABLE whole REPLICA IDENTITY FULL;
CREATE TABLE by_index (id integer PRIMARY KEY, code text NOT NULL UNIQUE, n integer);
ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_code_key;
CREATE TABLE keyless (n integer);
CREATE PUBLICATION p FOR ALL TABLES;
SELECT pg_create_logical_replication_slot('golden', 'pgoutput');
SELECT pg_replication_origin_create('elsewhere');

INSERT INTO kinds VALUES
    (1, true, -2, 9223372036854775807, 1.5, 1e-20, 12345678901234567890.12300, 16.50, '2024-03-01',
     '08:15:30.123456', '08:15:30+05:30', '2024-03-01 08:15:30.5', '2024-03-01 10:15:30+02',
     '1 year 2 mons 3 days 04:05:06.78', '\x00ff10', E'{"a":\n [1, "\\u00e9"]}', '{"b": null}',
     ARRAY['a', 'b "c"', NULL, 'd\e'], '{{1,2},{3,4}}', '{"2024-03-01 00:00:00+00"}',
     ARRAY['{"x": "y"}'::jsonb], '{(1,1),(0,0);(3,3),(2,2)}', 'so "so"', '{calm}', 7,
     'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', E'tab\tquote"é', '10.0.0.1', '[1,5)', 3.5, B'101'),
    (2, false, 0, -1, 'NaN', '-Infinity', 'NaN', 0, 'infinity', '24:00:00', '00:00:00+00',
     '0044-03-15 12:00:00 BC', '-infinity', '-1 days', '', 'null', '[]', '{}', '[0:1]={5,6}', '{}',
     '{}', '{}', 'calm', NULL, 1, NULL, '', '::1', 'empty', -1, B'000');
INSERT INTO kinds (id) VALUES (3);
INSERT INTO toasted SELECT 1, string_agg(md5(i::text), ''), 0 FROM generate_series(1, 200) i;
UPDATE toasted SET n = 1;
UPDATE toasted SET id = 2;
DELETE FROM toasted;
INSERT INTO whole SELECT 1, string_agg(md5(i::text), ''), 0 FROM generate_series(1, 200) i;
UPDATE whole SET n = 1;
DELETE FROM whole;
INSERT INTO by_index VALUES (1, 'a', 0);
UPDATE by_index SET n = 1;
UPDATE by_index SET code = 'b';
DELETE FROM by_index;
INSERT INTO keyless VALUES (1);
BEGIN;
SELECT pg_replication_origin_session_setup('elsewhere');
SELECT pg_replication_origin_xact_setup('0/1234', '2024-03-01 00:00:00+00');
INSERT INTO keyless VALUES (2);
COMMIT;
SELECT pg_replication_origin_session_reset();
TRUNCATE kinds, keyless RESTART IDENTITY CASCADE;
SELECT pg_logical_emit_message(true, 'taxi-batch', 'bin'), pg_logical_emit_message(false, 'now', '');
