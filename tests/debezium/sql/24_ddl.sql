-- Tables that are altered while their changes are read.
CREATE TABLE changing (id int PRIMARY KEY, a text);
INSERT INTO changing VALUES (1, 'before');
-- wait
ALTER TABLE changing ADD COLUMN b int DEFAULT 5;
UPDATE changing SET a = 'added b';
INSERT INTO changing VALUES (2, 'added b', 6);
-- wait
ALTER TABLE changing ADD COLUMN c numeric(6, 2) NOT NULL DEFAULT 1.25;
INSERT INTO changing VALUES (3, 'added c', 7, 2.5);
DELETE FROM changing WHERE id = 3;
-- wait
ALTER TABLE changing RENAME COLUMN a TO renamed;
INSERT INTO changing VALUES (4, 'renamed a', 8, 3.5);
-- wait
ALTER TABLE changing ALTER COLUMN b TYPE bigint;
INSERT INTO changing VALUES (5, 'retyped b', 9, 4.5);
-- wait
ALTER TABLE changing ALTER COLUMN b TYPE text;
INSERT INTO changing VALUES (6, 'retyped b', 'ten', 5.5);
-- wait
ALTER TABLE changing ALTER COLUMN c TYPE numeric(10, 4);
INSERT INTO changing VALUES (7, 'rescaled c', 'x', 5.5);
-- wait
ALTER TABLE changing DROP COLUMN b;
INSERT INTO changing VALUES (8, 'dropped b', 6.5);
UPDATE changing SET c = 7.5 WHERE id = 8;
-- wait
ALTER TABLE changing DROP CONSTRAINT changing_pkey, ADD PRIMARY KEY (id, c);
INSERT INTO changing VALUES (9, 'new key', 8.5);
DELETE FROM changing WHERE id = 9;
-- wait
ALTER TABLE changing REPLICA IDENTITY FULL;
INSERT INTO changing VALUES (10, 'full', 9.5);
UPDATE changing SET renamed = 'still full' WHERE id = 10;
-- wait
ALTER TABLE changing RENAME TO changed;
INSERT INTO changed VALUES (11, 'renamed table', 9.5);
-- wait
ALTER TABLE changed ALTER COLUMN renamed SET DEFAULT 'default';
INSERT INTO changed VALUES (12, NULL, 9.5);
BEGIN;
INSERT INTO changed VALUES (13, 'same transaction', 9.5);
ALTER TABLE changed ADD COLUMN late int;
INSERT INTO changed VALUES (14, 'same transaction', 9.5, 1);
COMMIT;
-- wait
DROP TABLE changed;
CREATE TABLE changed (id text PRIMARY KEY);
INSERT INTO changed VALUES ('a new table of an old name');
