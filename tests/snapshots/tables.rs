//! The tables: keys of several types and of several columns, none at all with and without a replica
//! identity, partitions, many columns, values too large for their row, nothing in it, and one of
//! which a part is published.
//!
//! Each row has a number from which its key follows, so that statements find it. Numbers up to
//! [`SEEDED`] are there before the bridge; of these, only the first [`HOT`] are ever written again.

use std::fmt::Write as _;

/// Rows of a table before the start.
pub(crate) const SEEDED: u32 = 6_000;

/// Numbers that the load writes to, whether there is such a row or not.
pub(crate) const HOT: u32 = 120;

/// A table of the test.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Table {
    pub(crate) name: &'static str,
    /// Its primary key; none for a table without.
    pub(crate) key: &'static [&'static str],
    /// The key's values for a row's number, which stands for `{n}`, an SQL expression.
    number: &'static [&'static str],
    /// The other columns that are published: `version`, `body`, and what more there is.
    pub(crate) rest: &'static [&'static str],
    /// What is made, but for what all have.
    create: &'static str,
    /// What is made beside it.
    also: &'static str,
    /// A condition on its rows that stands for a part of them: `{n}` is one of five.
    part: &'static str,
    /// Of which rows the events tell.
    pub(crate) published: &'static str,
    /// Which writes it takes.
    pub(crate) takes: Takes,
}

/// Which writes a table takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    All,
    Inserts,
    Nothing,
}

const PLAIN: &[&str] = &["version", "body"];

const fn keyed(
    name: &'static str,
    key: &'static [&'static str],
    number: &'static [&'static str],
    create: &'static str,
) -> Table {
    let (rest, part, published) = (PLAIN, "id % 5 = {n}", "true");
    Table { name, key, number, rest, create, also: "", part, published, takes: Takes::All }
}

/// All of them.
pub(crate) const TABLES: [Table; 11] = [
    keyed("rides", &["id"], &["{n}"], "CREATE TABLE rides (id int PRIMARY KEY"),
    Table {
        part: "id::text LIKE '%{n}'",
        ..keyed(
            "drivers",
            &["id"],
            &["md5(({n})::text)::uuid"],
            "CREATE TABLE drivers (id uuid PRIMARY KEY",
        )
    },
    Table {
        part: "region = {n}",
        ..keyed(
            "places",
            &["region", "code"],
            &["{n} % 7", "'c' || {n}"],
            "CREATE TABLE places (region int, code text, PRIMARY KEY (region, code)",
        )
    },
    Table {
        also: "ALTER TABLE archive REPLICA IDENTITY FULL;",
        ..keyed("archive", &["id"], &["{n}"], "CREATE TABLE archive (id bigint PRIMARY KEY")
    },
    Table {
        part: "hour BETWEEN {n} * 600 AND {n} * 600 + 599.5",
        ..keyed(
            "shifts",
            &["day", "hour"],
            &["date '2020-01-01' + {n} % 100", "{n} / 2.0"],
            "CREATE TABLE shifts (day date, hour numeric(8,1), PRIMARY KEY (day, hour)",
        )
    },
    Table {
        also: "CREATE TABLE readings_1 PARTITION OF readings FOR VALUES FROM (0) TO (40);
               CREATE TABLE readings_2 PARTITION OF readings FOR VALUES FROM (40) TO (4000);
               CREATE TABLE readings_3 PARTITION OF readings DEFAULT;",
        ..keyed("readings", &["id"], &["{n}"], "CREATE TABLE readings (id int PRIMARY KEY")
    },
    Table {
        also: "ALTER TABLE wide ALTER large SET STORAGE EXTERNAL;",
        rest: &["version", "body", "c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8", "large"],
        ..keyed(
            "wide",
            &["id"],
            &["{n}"],
            "CREATE TABLE wide (id int PRIMARY KEY, c1 text DEFAULT 'one', c2 text, c3 int DEFAULT 3,
             c4 boolean DEFAULT true, c5 text DEFAULT '', c6 bigint, c7 text, c8 text DEFAULT E'\\t\\\\',
             large text DEFAULT repeat('large', 450)",
        )
    },
    Table {
        published: "id % 2 = 0",
        ..keyed(
            "guests",
            &["id"],
            &["{n}"],
            "CREATE TABLE guests (id int PRIMARY KEY, secret text DEFAULT 'not told'",
        )
    },
    Table {
        rest: &["tag", "version", "body"],
        also: "ALTER TABLE notes REPLICA IDENTITY FULL;",
        part: "tag % 5 = {n}",
        ..keyed("notes", &[], &[], "CREATE TABLE notes (tag bigint")
    },
    Table {
        rest: &["tag", "version", "body"],
        takes: Takes::Inserts,
        part: "tag % 5 = {n}",
        ..keyed("log", &[], &[], "CREATE TABLE log (tag bigint")
    },
    Table {
        takes: Takes::Nothing,
        ..keyed("vacant", &["id"], &["{n}"], "CREATE TABLE vacant (id int PRIMARY KEY")
    },
];

/// What of single tables stands in the configuration.
///
/// That of `guests` hides something, so its name is a glob: an exact one refuses a start at which the
/// table does not exist yet.
const OF_TABLES: &str = "
[tables.\"public.guest[s]\"]
exclude_columns = [\"secret\"]
where = \"id % 2 = 0\"
[tables.\"public.notes\"]
partitions = 1
[tables.\"public.log\"]
partitions = 1
";

/// What of the tables stands in the configuration, with `postgres.tables`.
pub(crate) fn config(patterns: &[String]) -> String {
    let patterns: Vec<String> = patterns.iter().map(|pattern| format!("{pattern:?}")).collect();
    let patterns = patterns.join(", ");
    // Looked for often where a test waits for new ones.
    format!("[postgres]\ntables = [{patterns}]\ndiscover_interval = \"200ms\"\n{OF_TABLES}")
}

impl Table {
    /// Its name as `postgres.tables` has it.
    pub(crate) fn full_name(&self) -> String {
        format!("public.{}", self.name)
    }

    /// Makes it, with the rows that are there before.
    pub(crate) fn script(&self) -> String {
        let Self { name, create, also, .. } = self;
        let parted = if *name == "readings" { " PARTITION BY RANGE (id)" } else { "" };
        let mut script = format!(
            "{create}, version int NOT NULL, body text){parted};
             ALTER TABLE {name} ALTER body SET STORAGE EXTERNAL;
             {also}"
        );
        if self.takes == Takes::Nothing {
            return script;
        }
        let (columns, values) = match self.key.is_empty() {
            true => ("tag".to_owned(), "n".to_owned()),
            false => (self.key.join(", "), self.key_of("n")),
        };
        // Every tenth is too large for its row.
        let _ = write!(
            script,
            "INSERT INTO {name} ({columns}, version, body)
             SELECT {values}, 0, repeat('b' || n, CASE WHEN n % 10 = 0 THEN 800 ELSE 20 END)
             FROM generate_series(1, {SEEDED}) n;"
        );
        script
    }

    /// A condition that holds for a part of its rows; which of five is the number's.
    pub(crate) fn part_of(&self, number: u32) -> String {
        self.part.replace("{n}", &number.to_string())
    }

    /// The columns of the events.
    pub(crate) fn columns(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.key.iter().chain(self.rest).copied()
    }

    /// The key's values of a row's number.
    pub(crate) fn key_of(&self, number: &str) -> String {
        self.number.join(", ").replace("{n}", number)
    }

    /// The condition that finds a row by its number.
    pub(crate) fn place_of(&self, number: &str) -> String {
        format!("({}) = ({})", self.key.join(", "), self.key_of(number))
    }

    /// What moves a row to another number.
    pub(crate) fn set_key(&self, number: &str) -> String {
        let value = |(column, value): (&&str, &&str)| {
            format!("{column} = {}", value.replace("{n}", number))
        };
        self.key.iter().zip(self.number).map(value).collect::<Vec<_>>().join(", ")
    }
}

/// The table whose topic this is.
pub(crate) fn table_of(topic: &str) -> &'static Table {
    let name = topic.rsplit('.').next().unwrap_or_default();
    TABLES.iter().find(|table| table.name == name).expect("a topic of these tables")
}
