-- What the other files stand on. A step ends with a `;` at the end of a line, or, between BEGIN and
-- COMMIT, with the latter; each is one transaction. `-- since N` before a step: from PostgreSQL N
-- on. `-- wait`: until every reader has published all that came before; Debezium describes a table
-- as it is now, not as it was, so a table is not altered before its events are out.
CREATE EXTENSION hstore;
CREATE EXTENSION ltree;
CREATE EXTENSION citext;
CREATE TYPE mood AS ENUM ('calm', 'glad', 'so "so"', 'ça va');
CREATE TYPE growing AS ENUM ('calm', 'glad');
CREATE DOMAIN positive AS integer CHECK (VALUE > 0);
CREATE DOMAIN small_positive AS positive CHECK (VALUE < 100);
CREATE DOMAIN price AS numeric(8, 2);
CREATE DOMAIN list_price AS price CHECK (VALUE > 0);
CREATE DOMAIN any_number AS numeric;
CREATE DOMAIN short_text AS varchar(5);
CREATE DOMAIN instant AS timestamptz(3);
CREATE DOMAIN millis AS timestamp(3);
CREATE DOMAIN tags AS text[];
CREATE TYPE address AS (street text, zip integer);
CREATE TYPE floatrange AS RANGE (subtype = float8);
