-- Names that need quotes, or are not ASCII, or hold what a topic's name may not.
CREATE SCHEMA "Odd Schema";
CREATE TABLE "Odd Schema"."Odd Table" ("Key Column" int PRIMARY KEY, "a.b" int, "quote""d" text, "ünï" text, "1st" int, "select" int);
INSERT INTO "Odd Schema"."Odd Table" VALUES (1, 2, 'three', 'four', 5, 6);
UPDATE "Odd Schema"."Odd Table" SET "a.b" = 3;
DELETE FROM "Odd Schema"."Odd Table";
CREATE TABLE "CamelCase" ("Id" int PRIMARY KEY, "ID2" int);
INSERT INTO "CamelCase" VALUES (1, 2);
CREATE TABLE "tablé" ("clé" int PRIMARY KEY);
INSERT INTO "tablé" VALUES (1);
CREATE TABLE "dots.and-dashes_" (id int PRIMARY KEY);
INSERT INTO "dots.and-dashes_" VALUES (1);
CREATE TABLE "世界" ("鍵" int PRIMARY KEY);
INSERT INTO "世界" VALUES (1);
