-- Arrays.
CREATE TABLE arrays (id int PRIMARY KEY, a boolean[], b smallint[], c int[], d bigint[], e oid[], f real[], g double precision[], h numeric[], i numeric(8, 2)[], j text[], k varchar(5)[], l char(3)[], m date[], n timestamp[], o timestamptz[], p uuid[], q json[], r jsonb[], s inet[], t cidr[], u macaddr[], v int4range[], w numrange[], x tsrange[], y tstzrange[], z daterange[], za int8range[], zb citext[], zc mood[], zd bytea[], ze time[], zf timetz[], zg ltree[]);
INSERT INTO arrays VALUES (1, '{t,f,NULL}', '{1,-2}', '{1,2,NULL}', '{9223372036854775807}', '{1,4294967295}', '{1.5,NaN}', '{0.1,-Infinity}', '{1.50,NULL,100}', '{1.5,-2.25}', '{a,"b \"c\"",NULL,"d\\e","NULL",""}', '{ab,c}', '{ab,c}', '{2024-03-01,1969-12-31}', '{"2024-03-01 08:15:30.5",NULL}', '{"2024-03-01 10:15:30+02"}', '{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}', ARRAY['{"a": 1}'::json, NULL, '[]'::json], ARRAY['{"x": "y"}'::jsonb], '{10.0.0.1,::1}', '{10.0.0.0/8}', '{08:00:2b:01:02:03}', '{"[1,5)",empty}', '{"[1.5,2)"}', '{"[2024-03-01,2024-03-02)"}', '{"[2024-03-01 00:00+00,2024-03-02 00:00+00)"}', '{"[2024-03-01,2024-03-02)"}', '{"[1,2)"}', '{Ab,NULL}', '{calm,"so \"so\"",NULL}', NULL, '{08:15:30.5,NULL}', '{08:15:30+02}', '{a.b,NULL}');
INSERT INTO arrays VALUES (2, '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}');
INSERT INTO arrays (id) VALUES (3);
CREATE TABLE arrays_bytea (id int PRIMARY KEY, a bytea[]);
INSERT INTO arrays_bytea VALUES (1, ARRAY['\x00ff'::bytea, NULL, ''::bytea]);
CREATE TABLE arrays_dropped (id int PRIMARY KEY, a money[], b name[], c interval[], d varbit[], e bit(3)[], f xml[], g point[], h box[], i hstore[], j positive[], k address[], l int4multirange[], m tsvector[], n pg_lsn[], o "char"[], p macaddr8[], q bit[], r floatrange[]);
INSERT INTO arrays_dropped VALUES (1, '{3.5}', '{n}', '{1 day}', '{101}', '{101}', ARRAY['<a/>'::xml], '{"(1,2)"}', '{(1,1),(0,0)}', ARRAY['k=>v'::hstore], '{7}', ARRAY[ROW('x', 1)::address], ARRAY['{[1,2)}'::int4multirange], ARRAY['a'::tsvector], '{0/1}', '{a}', '{08:00:2b:01:02:03:04:05}', '{1,0}', '{"[1,2)"}');
CREATE TABLE arrays_deep (id int PRIMARY KEY, a int[], b text[], c int[][]);
INSERT INTO arrays_deep VALUES (1, '[0:1]={5,6}', '{x}', '{1}');
INSERT INTO arrays_deep VALUES (2, '{1}', '{x}', '{1}');
-- Not of texts: Debezium publishes the memory addresses of the inner arrays.
CREATE TABLE arrays_square (id int PRIMARY KEY, a int[], b bigint[], c int[][], d numeric[], e boolean[], f double precision[], g timestamp[], h date[]);
INSERT INTO arrays_square VALUES (1, '{{1,2},{3,4}}', '{{1}}', '{{{1},{2}},{{3},{4}}}', '{{1.5},{2}}', '{{t,f}}', '{{1.5}}', '{{2024-03-01}}', '{{2024-03-01}}');
INSERT INTO arrays_square VALUES (2, '{1}', '{2}', '{1}', '{1}', '{t}', '{1}', '{2024-03-01}', '{2024-03-01}');
CREATE TABLE arrays_labels (id int PRIMARY KEY, a mood[], b mood[], c mood[], d ltree[], e ltree[], f citext[], g hstore[]);
INSERT INTO arrays_labels VALUES (1, '{calm,glad}', '{calm,NULL}', '{"so \"so\""}', '{a.b,c}', '{a,NULL}', '{A,b}', ARRAY['k=>v'::hstore, NULL]);
