//! Values of every built-in type, in a text that Postgres reads.
//!
//! Each type has edges, which are always tried, and a generator for anything in between. What a
//! value looks like in an event is no matter here. Families with much to say have files of their own.

mod array;
mod calendar;
mod document;

use rand::RngExt as _;
use rand::rngs::StdRng;

pub(super) use self::array::array;
use self::calendar::{DATES, TIMESTAMPS, date, time, timestamp, timestamp_of};
use self::document::{DOCUMENTS, document};

/// How a type's values stand in JSON under `types = "readable"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A number, a boolean, or the type's own text.
    Plain,
    /// Base64.
    Bytea,
    /// ISO 8601, which counts years through zero and gives long ones a sign.
    Date,
    /// Nested JSON.
    Json,
    /// An array of numbers, which Postgres writes with blanks between them.
    Vector,
}

/// A scalar type.
#[derive(Clone, Copy)]
pub(super) struct Scalar {
    /// As it stands in CREATE TABLE.
    pub(super) name: &'static str,
    pub(super) form: Form,
    /// What stands between the elements of an array of it.
    pub(super) delimiter: char,
    edges: &'static [&'static str],
    random: fn(&mut StdRng) -> String,
}

impl Scalar {
    const fn new(
        name: &'static str,
        edges: &'static [&'static str],
        random: fn(&mut StdRng) -> String,
    ) -> Self {
        Self { name, form: Form::Plain, delimiter: ',', edges, random }
    }

    /// Whether a value may be an array of JSON itself.
    pub(super) const fn nests(&self) -> bool {
        matches!(self.form, Form::Json | Form::Vector)
    }

    const fn with(self, form: Form) -> Self {
        Self { form, ..self }
    }

    /// The `index`th edge, and beyond the last one anything.
    pub(super) fn value(&self, index: usize, random: &mut StdRng) -> String {
        match self.edges.get(index) {
            Some(edge) => (*edge).to_owned(),
            None => (self.random)(random),
        }
    }
}

/// Made before the table, for types that are not built in.
pub(super) const TYPES: &str = r#"
CREATE TYPE mood AS ENUM ('calm', 'so "so"', 'it''s, {odd}');
CREATE TYPE place AS (zone integer, name text);
CREATE DOMAIN positive AS integer CHECK (VALUE > 0);
CREATE DOMAIN price AS numeric(10, 2);
CREATE DOMAIN prices AS price[];
"#;

/// All scalar types.
pub(super) const SCALARS: &[Scalar] = &[
    Scalar::new("boolean", &["t", "f"], |r| r.random::<bool>().to_string()),
    Scalar::new("smallint", &["-32768", "32767", "0"], |r| r.random::<i16>().to_string()),
    Scalar::new("integer", &["-2147483648", "2147483647", "0"], |r| r.random::<i32>().to_string()),
    Scalar::new(
        "bigint",
        &["-9223372036854775808", "9223372036854775807", "9007199254740993"],
        |r| r.random::<i64>().to_string(),
    ),
    Scalar::new("oid", &["0", "4294967295"], |r| r.random::<u32>().to_string()),
    Scalar::new("xid", &["0", "4294967295"], |r| r.random::<u32>().to_string()),
    Scalar::new("xid8", &["0", "18446744073709551615"], |r| r.random::<u64>().to_string()),
    Scalar::new(
        "real",
        &["0", "-0", "NaN", "Infinity", "-Infinity", "3.4028235e38", "1e-45", "0.1", "16777217"],
        |r| float(f32::from_bits(r.random()).into()),
    ),
    Scalar::new(
        "double precision",
        &[
            "0",
            "-0",
            "NaN",
            "Infinity",
            "-Infinity",
            "1.7976931348623157e308",
            "5e-324",
            "0.1",
            "1e15",
            "1e16",
            "123456789.123",
        ],
        |r| float(f64::from_bits(r.random())),
    ),
    Scalar::new(
        "numeric",
        &[
            "0",
            "0.000",
            "-0.0",
            "NaN",
            "Infinity",
            "-Infinity",
            "1e300",
            "1e-300",
            "12345678901234567890.12300",
        ],
        decimal,
    ),
    Scalar::new("numeric(20,5)", &["0", "999999999999999.99999", "-0.00001", "NaN"], |r| {
        format!(
            "{}.{:05}",
            r.random_range(-99_999_999_999_999_i64..99_999_999_999_999),
            r.random_range(0..100_000)
        )
    }),
    Scalar::new("money", &["0", "-92233720368547758.08", "92233720368547758.07"], |r| {
        format!("{}.{:02}", r.random::<i32>(), r.random_range(0..100))
    }),
    Scalar::new(
        "text",
        &[
            "",
            " ",
            "null",
            "NULL",
            "\\",
            "\"",
            "'",
            "\u{1}\t\r\n\u{1f}\u{7f}",
            "\u{2028}é😀\u{feff}",
            "{a,b}",
            "\\x00",
        ],
        |r| {
            // Now and then one that is stored out of line.
            let longest = if r.random_range(0..10) == 0 { 9_000 } else { 30 };
            text(r, longest)
        },
    ),
    Scalar::new("varchar(20)", &["", "  "], |r| text(r, 20)),
    Scalar::new("char(5)", &["", "a", "ab c "], |r| text(r, 5)),
    Scalar::new("name", &["", "a name"], |r| text(r, 15)),
    Scalar::new("\"char\"", &["", "a", "\\", "\""], |r| {
        char::from(r.random_range(b' '..=b'~')).to_string()
    }),
    Scalar::new("bytea", &["\\x", "\\x00", "\\x5c22ff"], |r| {
        format!("\\x{}", many(r, 0..60, "", |r| format!("{:02x}", r.random::<u8>())))
    })
    .with(Form::Bytea),
    Scalar::new("date", DATES, |r| {
        let year = r.random_range(-4712..20_000);
        date(r, year)
    })
    .with(Form::Date),
    Scalar::new("time", &["00:00:00", "24:00:00", "23:59:59.999999", "00:00:00.1"], time),
    Scalar::new("time(2)", &["00:00:00", "12:00:00.25"], time),
    Scalar::new(
        "timetz",
        &["00:00:00+00", "24:00:00-15:59", "23:59:59.999999+15:59:59", "12:00:00-00:30"],
        |r| {
            let time = time(r);
            format!("{time}{:+03}:{:02}", r.random_range(-15..=15), r.random_range(0..60))
        },
    ),
    Scalar::new("timestamp", TIMESTAMPS, |r| timestamp(r, "")).with(Form::Date),
    // Rounded up, the last timestamp would be one that Postgres writes and does not read.
    Scalar::new("timestamp(3)", &["1969-12-31 23:59:59.9995", "-infinity"], |r| timestamp(r, ""))
        .with(Form::Date),
    Scalar::new(
        "timestamptz",
        &[
            "4713-01-02 00:00:00+00 BC",
            "0001-12-31 23:59:59.999999+00 BC",
            "2024-07-01 12:00:00+05:30",
            "1883-11-18 12:00:00-04:56:02",
            "294276-12-31 23:59:59.999999+00",
            "infinity",
            "-infinity",
        ],
        |r| timestamp(r, "+00"),
    )
    .with(Form::Date),
    Scalar::new(
        "interval",
        &[
            "0",
            "-1 mons +2 days -03:00:00.000001",
            "178000000 years",
            "-178000000 years",
            "2147483647 days",
            "-00:00:00.000001",
            "1 year -1 mons",
        ],
        |r| {
            // Version 14 reads no part that is beyond an int.
            let (months, days) = (r.random_range(-2_000_000_000..2_000_000_000), r.random::<i32>());
            let sign = if r.random() { "-" } else { "" };
            format!(
                "{months} mons {days} days {sign}{}:{}",
                r.random_range(0..277_777),
                &time(r)[3..]
            )
        },
    ),
    Scalar::new(
        "uuid",
        &["00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"],
        |r| format!("{:032x}", r.random::<u128>()),
    ),
    Scalar::new("json", DOCUMENTS, |r| document(r, 3, true)).with(Form::Json),
    Scalar::new("jsonb", DOCUMENTS, |r| document(r, 3, true)).with(Form::Json),
    Scalar::new("jsonpath", &["$", "strict $.\"a b\"[*] ? (@ > 1)"], |r| {
        format!("$.k[{}]", r.random::<u16>())
    }),
    Scalar::new("xml", &["<a/>", "<a b=\"1\">é &amp;\n<![CDATA[<]]></a>", "text"], |r| {
        format!("<a>{}</a>", r.random::<u32>())
    }),
    Scalar::new(
        "inet",
        &["0.0.0.0/0", "10.0.0.1", "10.1.2.3/8", "::1", "2001:db8::1/64", "::ffff:1.2.3.4"],
        |r| many(r, 4..5, ".", |r| r.random::<u8>().to_string()),
    ),
    Scalar::new("cidr", &["0.0.0.0/0", "10.0.0.0/8", "2001:db8::/32"], |r| {
        format!("{}.{}.0.0/16", r.random::<u8>(), r.random::<u8>())
    }),
    Scalar::new("macaddr", &["00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff"], |r| {
        many(r, 6..7, ":", |r| format!("{:02x}", r.random::<u8>()))
    }),
    Scalar::new("macaddr8", &["00:00:00:00:00:00:00:00"], |r| {
        many(r, 8..9, ":", |r| format!("{:02x}", r.random::<u8>()))
    }),
    Scalar::new("bit(5)", &["00000", "11111"], |r| many(r, 5..6, "", bit)),
    Scalar::new("varbit", &["", "0"], |r| many(r, 0..70, "", bit)),
    Scalar::new("point", &["(0,-0)", "(NaN,Infinity)"], point),
    Scalar::new("line", &["{1,-1,0}", "{0,1e300,5e-324}"], |r| {
        format!("{{1,{},{}}}", coordinate(r), coordinate(r))
    }),
    Scalar::new("lseg", &["[(0,0),(0,0)]"], |r| format!("[{}]", many(r, 2..3, ",", point))),
    Scalar {
        delimiter: ';',
        ..Scalar::new("box", &["(1,1),(0,0)"], |r| many(r, 2..3, ",", point))
    },
    Scalar::new("path", &["[(0,0)]", "((0,0),(1,1))"], |r| {
        format!("[{}]", many(r, 1..6, ",", point))
    }),
    Scalar::new("polygon", &["((0,0))"], |r| format!("({})", many(r, 1..6, ",", point))),
    Scalar::new("circle", &["<(0,0),0>"], |r| {
        format!("<{},{}>", point(r), r.random_range(0..1000))
    }),
    Scalar::new("tsvector", &["", "a:1A fat:2,4C", "'it''s' '\\\\x':7"], |r| {
        many(r, 0..9, " ", |r| format!("w{}:{}", r.random::<u8>(), r.random_range(1..99)))
    }),
    Scalar::new("tsquery", &["", "'a' & !'b' <-> ('c' | 'it''s':*A)"], |r| {
        many(r, 1..5, " & ", |r| format!("w{}", r.random::<u8>()))
    }),
    Scalar::new("pg_lsn", &["0/0", "FFFFFFFF/FFFFFFFF"], |r| {
        format!("{:X}/{:X}", r.random::<u32>(), r.random::<u32>())
    }),
    Scalar::new("pg_snapshot", &["1:1:", "10:20:10,14,15"], |r| {
        let low = r.random_range(1..1000);
        format!("{low}:{}:{low}", low + 9)
    }),
    Scalar::new("tid", &["(0,1)", "(4294967295,65535)"], |r| {
        format!("({},{})", r.random::<u32>(), r.random::<u16>())
    }),
    Scalar::new("int2vector", &["", "1 -2 3"], |r| {
        many(r, 0..9, " ", |r| r.random::<i16>().to_string())
    })
    .with(Form::Vector),
    Scalar::new("oidvector", &["", "0 4294967295"], |r| {
        many(r, 0..9, " ", |r| r.random::<u32>().to_string())
    })
    .with(Form::Vector),
    Scalar::new("int4range", &["empty", "(,)", "[1,)", "(,2147483647)"], |r| {
        let low = r.random_range(-1000..1000);
        format!("[{low},{}]", low + 7)
    }),
    Scalar::new("int8range", &["empty", "[-9223372036854775808,9223372036854775807)"], |r| {
        let low = r.random::<i32>();
        format!("({low},{}]", i64::from(low) + 7)
    }),
    Scalar::new("numrange", &["empty", "(1.50,2]", "[-Infinity,NaN]"], |r| {
        let low = r.random_range(-1000..1000);
        format!("[{low}.50,{}.000)", low + 7)
    }),
    Scalar::new("daterange", &["empty", "[-infinity,infinity]", "(,\"0044-03-15 BC\")"], |r| {
        let from = date(r, 1900);
        format!("[{from},{})", date(r, 2100))
    }),
    Scalar::new("tsrange", &["empty", "(,)"], |r| {
        let from = timestamp_of(r, 1900, "");
        format!("[\"{from}\",\"{}\"]", timestamp_of(r, 2100, ""))
    }),
    Scalar::new("tstzrange", &["empty", "[\"2024-01-01 00:00:00+02\",infinity)"], |r| {
        let from = timestamp_of(r, 1900, "+00");
        format!("(\"{from}\",\"{}\"]", timestamp_of(r, 2100, "+00"))
    }),
    Scalar::new("int4multirange", &["{}", "{(,)}", "{[1,3),[5,8)}"], |r| {
        let low = r.random_range(-1000..1000);
        format!("{{[{low},{}),[{},{})}}", low + 2, low + 5, low + 9)
    }),
    Scalar::new("nummultirange", &["{}", "{[1.50,2)}"], |r| {
        let low = r.random_range(-1000..1000);
        format!("{{[{low}.1,{})}}", low + 2)
    }),
    Scalar::new("mood", &["calm", "so \"so\"", "it's, {odd}"], |r| {
        ["calm", "so \"so\""][r.random_range(0..2)].to_owned()
    }),
    Scalar::new("place", &["(,)", "(1,\"\")", "(132,\"a \"\"b\"\", \\\\ (c)\")"], |r| {
        format!("({},w{})", r.random::<i32>(), r.random::<u8>())
    }),
    Scalar::new("positive", &["1", "2147483647"], |r| r.random_range(1..i32::MAX).to_string()),
    Scalar::new("price", &["0", "-99999999.99"], |r| {
        format!("{}.{:02}", r.random_range(-9_999_999..9_999_999), r.random_range(0..100))
    }),
];

fn float(value: f64) -> String {
    if value.is_nan() { "NaN".to_owned() } else { format!("{value:e}").replace("inf", "Infinity") }
}

fn coordinate(random: &mut StdRng) -> String {
    float(f64::from(random.random_range(-1_000_000_i32..1_000_000)) / 64.0)
}

fn point(random: &mut StdRng) -> String {
    format!("({},{})", coordinate(random), coordinate(random))
}

fn bit(random: &mut StdRng) -> String {
    u8::from(random.random::<bool>()).to_string()
}

fn many(
    random: &mut StdRng,
    count: std::ops::Range<usize>,
    between: &str,
    mut one: impl FnMut(&mut StdRng) -> String,
) -> String {
    let count = random.random_range(count);
    (0..count).map(|_| one(random)).collect::<Vec<_>>().join(between)
}

fn decimal(random: &mut StdRng) -> String {
    let digits = |random: &mut StdRng, most| {
        many(random, 1..most, "", |r| r.random_range(0..10).to_string())
    };
    let sign = if random.random() { "-" } else { "" };
    format!("{sign}{}.{}", digits(random, 60), digits(random, 40))
}

/// Any characters but the zero byte, which Postgres does not take.
fn text(random: &mut StdRng, longest: usize) -> String {
    let one = |random: &mut StdRng| match random.random_range(0..8) {
        0 => char::from_u32(random.random_range(1..0x11_0000)).unwrap_or('\u{fffd}').to_string(),
        1 => ["\\", "\"", "'", "{", "}", ",", "\n", "\t"][random.random_range(0..8)].to_owned(),
        _ => char::from(random.random_range(b' '..=b'~')).to_string(),
    };
    many(random, 0..longest + 1, "", one)
}
