-- Plants a trap for every function, operator and type of the system's that is named in $WORDS: one
-- with the same arguments, and some that would fit what is written better. Each says in the server's
-- log that it was sprung, and returns null.
SET search_path = pg_catalog;

CREATE TEMPORARY TABLE words AS SELECT unnest($WORDS) AS word;

-- For a type that an original takes, what somebody else's could take instead: in one variant each.
CREATE TEMPORARY TABLE variants (variant int, original regtype, better regtype);
INSERT INTO variants
SELECT v.variant, o.original, v.better
FROM (VALUES (1, 'name'::regtype), (2, 'oid'), (3, 'text'), (4, 'int4'), (5, 'int8'), (6, 'bool'),
      (7, '"char"'), (8, 'int2'), (9, 'regclass'), (10, 'varchar'), (11, 'tid'), (12, 'xid'),
      (13, 'timestamptz'), (14, 'pg_lsn'), (15, 'float8')) v (variant, better),
     (VALUES ('anyelement'::regtype), ('"any"'), ('anynonarray'), ('anycompatible')) o (original);
INSERT INTO variants
SELECT v.variant, o.original, v.better
FROM (VALUES (1, 'name[]'::regtype), (2, 'oid[]'), (3, 'text[]'), (4, 'int2[]'), (5, 'int8[]'),
      (6, 'int4[]'), (7, '"char"[]')) v (variant, better),
     (VALUES ('anyarray'::regtype), ('anycompatiblearray')) o (original);
INSERT INTO variants VALUES (1, 'text', 'name'), (2, 'text', 'varchar'), (7, 'text', '"char"');

DO $do$
DECLARE
    f record;
    planted int := 0;
BEGIN
    FOR f IN
        WITH taken AS (
            SELECT p.oid, p.proname, p.proretset, p.prorettype, v.variant,
                   ARRAY(SELECT CASE WHEN v.variant = 0 THEN a.type::regtype
                                     ELSE coalesce(better.better, a.type::regtype) END
                         FROM unnest(p.proargtypes::oid[]) WITH ORDINALITY a (type, place)
                         LEFT JOIN variants better
                             ON better.original = a.type AND better.variant = v.variant
                         ORDER BY a.place) AS arguments
            FROM pg_proc p
            JOIN words w ON w.word = p.proname
            CROSS JOIN generate_series(0, 15) v (variant)
            WHERE p.pronamespace = 'pg_catalog'::regnamespace
              AND p.prorettype <> 'trigger'::regtype
        ),
        -- Those that take any number of arguments, as functions of so many.
        many AS (
            SELECT p.proname, array_fill('text'::regtype, ARRAY[n]) AS arguments
            FROM pg_proc p
            JOIN words w ON w.word = p.proname
            CROSS JOIN generate_series(1, 6) n
            WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.provariadic <> 0
        )
        SELECT DISTINCT proname, arguments, proretset,
               CASE WHEN format_type(prorettype, NULL) ~ '^any|internal|cstring|"any"|record'
                    THEN 'text' ELSE format_type(prorettype, NULL) END AS returns
        FROM taken
        UNION
        SELECT proname, arguments, false, 'text' FROM many
    LOOP
        BEGIN
            EXECUTE format(
                'CREATE FUNCTION public.%I(%s) RETURNS %s %s LANGUAGE plpgsql AS %L',
                f.proname, array_to_string(f.arguments, ', '),
                CASE WHEN f.proretset THEN 'SETOF' ELSE '' END, f.returns,
                format('BEGIN RAISE LOG %L; RETURN%s; END', 'sprung: function ' || f.proname,
                       CASE WHEN f.proretset THEN '' ELSE ' NULL' END));
            planted := planted + 1;
        EXCEPTION WHEN OTHERS THEN NULL;
        END;
    END LOOP;
    RAISE NOTICE 'planted % functions', planted;
END
$do$;

DO $do$
DECLARE
    o record;
    trap text;
    planted int := 0;
BEGIN
    FOR o IN
        WITH system_types AS (
            SELECT t.type FROM unnest('{name,text,varchar,bpchar,"\"char\"",oid,int2,int4,int8,float8,
                bool,xid,tid,pg_lsn,regclass,timestamptz,interval,int2vector,oidvector,name[],text[],
                oid[],int2[],"\"char\"[]",jsonb,shop.mood,shop.mood[]}'::regtype[]) t (type)
        ),
        wanted AS (
            SELECT DISTINCT p.oprname FROM pg_operator p JOIN words w ON w.word = p.oprname
        )
        SELECT p.oprname, nullif(p.oprleft, 0)::regtype AS l, p.oprright::regtype AS r,
               p.oprresult::regtype AS result
        FROM pg_operator p
        JOIN wanted USING (oprname)
        WHERE p.oprright <> 0 AND p.oprnamespace = 'pg_catalog'::regnamespace
        UNION
        SELECT w.oprname, l.type, r.type, 'bool'::regtype
        FROM wanted w CROSS JOIN system_types l CROSS JOIN system_types r
        WHERE l.type = r.type
           OR (l.type IN ('name', 'text', 'varchar', '"char"', 'shop.mood')
               AND r.type IN ('name', 'text', 'varchar', '"char"', 'shop.mood'))
           OR (l.type IN ('oid', 'int2', 'int4', 'int8', 'regclass', 'xid')
               AND r.type IN ('oid', 'int2', 'int4', 'int8', 'regclass', 'xid'))
    LOOP
        BEGIN
            trap := format('public.trap_%s', planted);
            EXECUTE format(
                'CREATE FUNCTION %s(%s) RETURNS %s LANGUAGE plpgsql AS %L', trap,
                concat_ws(', ', o.l, o.r), o.result,
                format('BEGIN RAISE LOG %L; RETURN NULL; END', 'sprung: operator ' || o.oprname));
            EXECUTE format('CREATE OPERATOR public.%s (FUNCTION = %s, %s RIGHTARG = %s)', o.oprname,
                trap, CASE WHEN o.l IS NULL THEN '' ELSE 'LEFTARG = ' || o.l || ',' END, o.r);
            planted := planted + 1;
        EXCEPTION WHEN OTHERS THEN NULL;
        END;
    END LOOP;
    RAISE NOTICE 'planted % operators', planted;
END
$do$;

-- A domain of the same name, whose values are looked at.
CREATE FUNCTION public.looked_at() RETURNS bool LANGUAGE plpgsql
    AS $$ BEGIN RAISE LOG 'sprung: type'; RETURN true; END $$;
DO $do$
DECLARE
    t record;
BEGIN
    FOR t IN
        SELECT DISTINCT y.typname FROM pg_type y JOIN words w ON w.word = y.typname
        WHERE y.typnamespace = 'pg_catalog'::regnamespace AND y.typtype IN ('b', 'r')
    LOOP
        BEGIN
            EXECUTE format('CREATE DOMAIN public.%I AS pg_catalog.%I CHECK (public.looked_at())',
                t.typname, t.typname);
        EXCEPTION WHEN OTHERS THEN NULL;
        END;
    END LOOP;
END
$do$;

-- And a relation of each name, which has nothing in it.
DO $do$
DECLARE
    c record;
BEGIN
    FOR c IN
        SELECT DISTINCT r.relname FROM pg_class r JOIN words w ON w.word = r.relname
        WHERE r.relnamespace = 'pg_catalog'::regnamespace AND r.relkind IN ('r', 'v')
    LOOP
        BEGIN
            EXECUTE format(
                'CREATE VIEW public.%I AS SELECT * FROM pg_catalog.%I WHERE public.looked_at()',
                c.relname, c.relname);
        EXCEPTION WHEN OTHERS THEN NULL;
        END;
    END LOOP;
END
$do$;

-- The same types and relations in the temporary schema of every session that begins: a stranger can't
-- put them there, but whatever the bridge calls could. (Functions and operators are never looked up
-- there.)
CREATE FUNCTION public.on_login() RETURNS event_trigger LANGUAGE plpgsql
    SET search_path = pg_catalog AS $$
DECLARE
    t record;
BEGIN
    IF session_user = 'postgres' THEN
        RETURN;
    END IF;
    FOR t IN SELECT typname FROM pg_catalog.pg_type
        WHERE typnamespace OPERATOR(pg_catalog.=) 'public'::pg_catalog.regnamespace
          AND typtype OPERATOR(pg_catalog.=) 'd'::pg_catalog."char"
    LOOP
        EXECUTE pg_catalog.format(
            'CREATE DOMAIN pg_temp.%I AS pg_catalog.%I CHECK (public.looked_at())', t.typname, t.typname);
    END LOOP;
    FOR t IN SELECT relname FROM pg_catalog.pg_class
        WHERE relnamespace OPERATOR(pg_catalog.=) 'public'::pg_catalog.regnamespace
          AND relkind OPERATOR(pg_catalog.=) 'v'::pg_catalog."char"
    LOOP
        EXECUTE pg_catalog.format('CREATE TEMPORARY VIEW %I AS SELECT * FROM public.%I', t.relname,
            t.relname);
    END LOOP;
END
$$;
DO $do$
BEGIN
    IF current_setting('server_version_num')::int >= 170000 THEN
        EXECUTE 'CREATE EVENT TRIGGER rowcast_traps ON login EXECUTE FUNCTION public.on_login()';
    END IF;
END
$do$;
