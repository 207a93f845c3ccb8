-- Numerics that bytes and a scale cannot hold.
CREATE TABLE numerics_special (id int PRIMARY KEY, fixed numeric(10, 2), free numeric);
INSERT INTO numerics_special VALUES (1, 'NaN', 'NaN');
INSERT INTO numerics_special VALUES (2, 1, 'Infinity');
INSERT INTO numerics_special VALUES (3, 1, '-Infinity');
INSERT INTO numerics_special VALUES (4, 1, 1);
