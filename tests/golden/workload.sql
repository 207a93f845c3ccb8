-- Makes every message and every kind of value that pgoutput sends, for tests/golden/capture.sh.
CREATE TYPE mood AS ENUM ('calm', 'so "so"');
CREATE TYPE place AS (zone integer, name text);
CREATE DOMAIN positive AS integer CHECK (VALUE > 0);
CREATE TABLE kinds (
    id bigint PRIMARY KEY, flag boolean, small smallint, big bigint, real4 real, real8 double precision,
    num numeric, num2 numeric(10,2), day date, clock time, clocktz timetz, moment timestamp,
    momenttz timestamptz, span interval, raw bytea, doc json, docb jsonb, words text[],
    numbers integer[], moments timestamptz[], docs jsonb[], boxes box[], mood mood, moods mood[],
    pos positive, uid uuid, note text, addr inet, rng int4range, cash money, bits bit(3)
);
CREATE TABLE more (
    id integer PRIMARY KEY, rngs int4multirange, place place, places place[], path path, mac macaddr,
    search tsvector, words text[], flags varbit, doc xml, zone name
);
-- A value goes out of line when its row is above 2 kB; EXTERNAL keeps it readable here.
CREATE TABLE toasted (id integer PRIMARY KEY, doc text, n integer);
ALTER TABLE toasted ALTER doc SET STORAGE EXTERNAL;
CREATE TABLE whole (id integer PRIMARY KEY, doc text, n integer);
ALTER TABLE whole ALTER doc SET STORAGE EXTERNAL;
ALTER TABLE whole REPLICA IDENTITY FULL;
CREATE TABLE by_index (id integer PRIMARY KEY, code text NOT NULL UNIQUE, n integer);
ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_code_key;
CREATE TABLE keyless (n integer);
CREATE TABLE nameless (n integer PRIMARY KEY);
ALTER TABLE nameless REPLICA IDENTITY NOTHING;
CREATE TABLE columnless ();
CREATE TABLE "Straße ""7""" ("Größe" integer PRIMARY KEY, gone integer, kept integer);
ALTER TABLE "Straße ""7""" DROP gone;
CREATE TABLE halves (id integer PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE lower_half PARTITION OF halves FOR VALUES FROM (0) TO (10);
CREATE TABLE upper_half PARTITION OF halves FOR VALUES FROM (10) TO (20);
-- Bytes as one line of ASCII: printable characters stand for themselves, all others are \xNN.
CREATE FUNCTION shown(bytes bytea) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(
        CASE WHEN byte = 92 THEN '\\' WHEN byte BETWEEN 32 AND 126 THEN chr(byte)
        ELSE '\x' || lpad(to_hex(byte), 2, '0') END, '' ORDER BY at)
    FROM (SELECT at, get_byte(bytes, at) AS byte FROM generate_series(0, length(bytes) - 1) at) b
$$;
CREATE PUBLICATION p FOR ALL TABLES WITH (publish_via_partition_root = true);
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
INSERT INTO more VALUES
    (1, '{[1,3),[5,8)}', '(132,"JFK ""Airport""")', ARRAY['(1,a)'::place, NULL], '[(0,0),(1,1)]',
     '08:00:2b:01:02:03', 'a:1 fat:2', '[2:3][-1:0]={{a,b},{NULL,"null"}}', B'10', '<a/>', 'zone');
INSERT INTO toasted VALUES (1, repeat('stored out of line ', 120), 0);
UPDATE toasted SET n = 1;
UPDATE toasted SET id = 2;
DELETE FROM toasted;
INSERT INTO whole VALUES (1, repeat('stored out of line ', 120), 0);
UPDATE whole SET n = 1;
DELETE FROM whole;
INSERT INTO by_index VALUES (1, 'a', 0);
UPDATE by_index SET n = 1;
UPDATE by_index SET code = 'b';
DELETE FROM by_index;
INSERT INTO keyless VALUES (1);
INSERT INTO nameless VALUES (1);
INSERT INTO columnless DEFAULT VALUES;
INSERT INTO "Straße ""7""" VALUES (1, 2);
INSERT INTO halves VALUES (1), (11);
UPDATE halves SET id = 12 WHERE id = 1;

-- The table changes between two rows of one transaction.
BEGIN;
INSERT INTO by_index VALUES (2, 'c', 0);
ALTER TABLE by_index ADD added text DEFAULT 'new';
ALTER TABLE by_index RENAME n TO amount;
INSERT INTO by_index VALUES (3, 'd', 1, 'given');
COMMIT;

BEGIN;
INSERT INTO keyless VALUES (2);
SAVEPOINT undone;
INSERT INTO keyless VALUES (3);
SELECT pg_logical_emit_message(true, 'undone', 'with the savepoint');
ROLLBACK TO undone;
SELECT pg_logical_emit_message(true, 'kept', 'in the transaction');
INSERT INTO keyless VALUES (4);
COMMIT;
BEGIN;
SELECT pg_logical_emit_message(false, 'at once', 'although the transaction is undone');
ROLLBACK;
BEGIN;
INSERT INTO keyless VALUES (5);
PREPARE TRANSACTION 'two phases';
COMMIT PREPARED 'two phases';
BEGIN;
SELECT pg_replication_origin_session_setup('elsewhere');
SELECT pg_replication_origin_xact_setup('0/1234', '2024-03-01 00:00:00+00');
INSERT INTO keyless VALUES (6);
COMMIT;
SELECT pg_replication_origin_session_reset();
TRUNCATE halves;
TRUNCATE kinds, keyless RESTART IDENTITY CASCADE;
SELECT pg_logical_emit_message(true, 'taxi-batch', '\x0001ff'::bytea),
    pg_logical_emit_message(false, 'now', '');
