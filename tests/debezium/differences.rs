//! The deliberate differences that `docs/debezium.md` lists, cell by cell, and no others.
//!
//! Each rule says for which tables of the script, and for which of their columns, what Debezium
//! publishes is not what rowcast does. A rule that is about a cell only allows what its difference
//! is: a column that Debezium publishes, for instance, is compared although it is listed as one
//! that it may leave out.

use crate::json::Json;
use crate::record::Record;

/// What each list of cells is an example of, as the documentation names it.
pub(crate) const NAMES: &[&str] = &[
    "Tables whose names become one topic",
    "Types that Debezium leaves out",
    "Values that Debezium loses",
    "Shapes as text",
    "Explicit NULLs",
    "Keys without a primary key",
    "Keys beside the replica identity",
    "Values that are refused",
    "Digits of real",
    "Unchanged large values",
    "Names in metadata",
    "More than the stream in snapshots",
    "Old dates in snapshots",
    "Misread defaults",
    "Arrays of bits",
    "Other defaults in schemas",
    "Key headers of dates and times",
    "Elements of arrays of dates and times",
    "Negative scales",
    "Infinite intervals",
    "Labels renamed",
    "Several ALTERs in one transaction",
    "FULL roots over other partitions",
    "Order of collections",
    "The first sequence after adoption",
    "Columns that differ by case",
];

/// Which of them lets which cells of the script pass. The others are of what no cell shows, or are
/// settled by a rule that is not about cells.
pub(crate) const MASKS: &[(&str, &str)] = &[
    ("LEFT_OUT", "Types that Debezium leaves out"),
    ("LOST", "Values that Debezium loses"),
    ("SHAPES", "Shapes as text"),
    ("DEFAULTS", "Explicit NULLs"),
    ("MISREAD_DEFAULTS", "Misread defaults"),
    ("MISREAD_TYPES", "Arrays of bits"),
    ("UNCHANGED", "Unchanged large values"),
    ("REALS", "Digits of real"),
    ("GENERATED", "More than the stream in snapshots"),
    ("OLD_DATES", "Old dates in snapshots"),
    ("OTHER_KEYS", "Keys without a primary key"),
    ("KEYS_BESIDE_IDENTITY", "Keys beside the replica identity"),
    ("DECIMAL_KEYS", "Names in metadata"),
    ("OTHER_PARTITIONS", "More than the stream in snapshots"),
    ("PARENTS", "More than the stream in snapshots"),
];

type Cells = &'static [(&'static str, &'static [&'static str])];

/// Types that Debezium leaves out.
const LEFT_OUT: Cells = &[
    ("arrays_dropped", &["a", "b", "c", "d", "f", "g", "h", "j", "k", "l", "n", "r"]),
    ("composites", &["home"]),
    ("figures", &["a", "b", "c", "d", "e", "f", "g"]),
    ("ltrees", &["b", "c"]),
    ("multiranges", &["a", "b", "c", "d"]),
    ("ranges", &["g"]),
    ("searches", &["b"]),
    ("systems", &["a", "c", "d", "e", "f", "g", "h", "i", "l", "m", "n", "o"]),
    ("toast_special", &["a", "b", "n2", "o"]),
];

/// Values that Debezium loses: null, or empty, or of another type.
const LOST: Cells = &[
    ("arrays", &["zc", "zg"]),
    ("arrays_dropped", &["e", "j", "q"]),
    ("arrays_labels", &["b", "e"]),
    ("arrays_square", &["a", "b", "c", "d", "e", "f", "g", "h"]),
    ("systems", &["j", "k"]),
    ("texts", &["g"]),
];

/// Shapes as text, which Debezium writes with numbers of its own.
const SHAPES: Cells =
    &[("arrays_dropped", &["h"]), ("figures", &["a", "b", "c", "d", "e", "f", "g"])];

/// Explicit NULLs, which Kafka Connect replaces by the column's default.
const DEFAULTS: Cells = &[
    ("changed", &["renamed"]),
    ("changing", &["b"]),
    (
        "defaults",
        &[
            "a", "b", "c", "d", "e", "f", "g", "h", "i", "k", "l", "m", "n", "o", "p", "q", "r",
            "s", "t",
        ],
    ),
    ("moods", &["b"]),
];

/// Defaults that Debezium's parser reads as something else; they are left out of rowcast's schemas.
const MISREAD_DEFAULTS: Cells = &[("defaults", &["t"])];

/// Arrays of bits, which Debezium describes as bits, and whose values it loses.
const MISREAD_TYPES: Cells = &[("arrays_dropped", &["e", "q"])];

/// Keys of tables that have none of their own.
const OTHER_KEYS: &[&str] = &["unique_include", "unique_key", "unique_partial"];

/// Keys that the replica identity does not hold.
const KEYS_BESIDE_IDENTITY: &[&str] = &["by_index"];

/// Keys with decimals, which Kafka Connect writes differently into headers.
const DECIMAL_KEYS: &[&str] = &["numeric_keys"];

/// Unchanged large values: null for types that Debezium has no placeholder for.
const UNCHANGED: Cells = &[
    ("toast", &["c", "g", "o", "p", "s", "u", "v", "w"]),
    ("toast_special", &["c", "d", "e", "f", "g", "i", "k", "l"]),
];

/// Digits of real.
const REALS: Cells = &[("floats", &["single"])];

/// More than the stream in snapshots: partitioned tables beside their partitions, by publication.
const OTHER_PARTITIONS: &[(&str, &[&str])] = &[
    ("leaves", &["parts", "zones", "zones_east"]),
    (
        "roots",
        &[
            "parts_late",
            "parts_north",
            "parts_rest",
            "zones_east",
            "zones_east_high",
            "zones_east_low",
            "zones_rest",
        ],
    ),
];

/// More than the stream in snapshots: columns that are generated.
const GENERATED: Cells = &[("generated", &["b"])];

/// Tables that others inherit from, and the rows of those.
pub(crate) const PARENTS: &[(&str, i32)] = &[("base", 2)];

/// Old dates in snapshots.
const OLD_DATES: Cells = &[("dates", &["day"]), ("dates_far", &["day"])];

/// Whether Debezium reads this row under another name too, or a second time.
pub(crate) fn is_read_twice(record: &Record, publication: &str) -> bool {
    let table = record.topic.strip_prefix("taxi.public.").unwrap_or("");
    let of_publication = OTHER_PARTITIONS.iter().filter(|(name, _)| *name == publication);
    let is_other = of_publication.flat_map(|(_, tables)| *tables).any(|other| *other == table);
    is_other
        || PARENTS.iter().any(|(parent, child)| {
            let id = record.event().and_then(|event| event.path(&["after", "id"]));
            *parent == table && matches!(id, Some(Json::Number(id)) if *id == child.to_string())
        })
}

/// Takes out of a pair of records of snapshots what is known to differ.
pub(crate) fn settle_read(expected: &mut Record, found: &mut Record) {
    let topic = expected.topic.clone();
    let table = topic.strip_prefix("taxi.public.").unwrap_or("");
    let generated = columns_of(table, GENERATED);
    for row in 0..2 {
        let rows = expected.value.as_mut().and_then(|value| value.field_mut("schema"));
        let row = rows.and_then(|schema| schema.field_mut("fields")?.item_mut(row));
        if let Some(Json::Array(columns)) = row.and_then(|row| row.field_mut("fields")) {
            let is_generated = |column: &Json| match column.field("field") {
                Some(Json::Text(name)) => generated.contains(&name.as_str()),
                _ => false,
            };
            columns.retain(|column| !is_generated(column));
        }
    }
    let old_dates = columns_of(table, OLD_DATES);
    let after = found.event_mut().and_then(|event| event.field_mut("after"));
    if let (Some(expected), Some(found)) = (expected.event_mut(), after)
        && let Some(Json::Object(columns)) = expected.field_mut("after")
    {
        columns.retain(|(name, _)| !generated.contains(&name.as_str()));
        for (name, date) in columns {
            // Days since 1970, or a text.
            if old_dates.contains(&name.as_str()) && is_old(found.field(name)) {
                date.clone_from(found.field(name).expect("it was just looked at"));
            }
        }
    }
    settle(expected, found);
}

/// Whether this is a date of before the Gregorian calendar, or none at all.
fn is_old(date: Option<&Json>) -> bool {
    /// 1582-10-15, in days since 1970.
    const GREGORIAN: i64 = -141_427;
    match date {
        Some(Json::Number(days)) => days.parse::<i64>().is_ok_and(|days| days < GREGORIAN),
        Some(Json::Text(text)) => text.starts_with('-') || text.as_str() < "1582-10-15",
        _ => false,
    }
}

/// Whether Debezium publishes this record and rowcast does not: a tombstone without a key.
pub(crate) fn is_only_debeziums(record: &Record) -> bool {
    record.key.is_none() && record.value.is_none()
}

/// Whether rowcast publishes this record and Debezium does not: a row without columns.
pub(crate) fn is_only_rowcasts(record: &Record) -> bool {
    record.topic == "taxi.public.empty"
}

/// Takes out of a pair of records what is known to differ.
pub(crate) fn settle(expected: &mut Record, found: &mut Record) {
    found.headers.retain(|(name, _)| name != "rowcast.unchanged");
    let topic = expected.topic.clone();
    let table = topic.strip_prefix("taxi.public.").unwrap_or("");
    if OTHER_KEYS.contains(&table) || KEYS_BESIDE_IDENTITY.contains(&table) {
        found.key.clone_from(&expected.key);
    }
    if KEYS_BESIDE_IDENTITY.contains(&table) || DECIMAL_KEYS.contains(&table) {
        settle_key_headers(expected, found);
    }
    if let (Some(expected), Some(found)) = (&expected.value, &mut found.value) {
        settle_schema(table, expected, found);
    }
    let (Some(expected), Some(found)) = (expected.event_mut(), found.event_mut()) else { return };
    settle_collections(expected, found);
    for row in ["before", "after"] {
        let (Some(expected), Some(found)) = (expected.field(row), found.field_mut(row)) else {
            continue;
        };
        settle_row(table, expected, found);
    }
}

fn columns_of(table: &str, cells: Cells) -> Vec<&'static str> {
    let own = cells.iter().filter(|(name, _)| *name == table);
    own.flat_map(|(_, columns)| columns.iter().copied()).collect()
}

/// The schemas of both rows: without the columns that Debezium leaves out, and with its defaults
/// where these are what it reads wrongly.
fn settle_schema(table: &str, expected: &Json, found: &mut Json) {
    let left_out = columns_of(table, LEFT_OUT);
    let misread = [columns_of(table, MISREAD_DEFAULTS), columns_of(table, MISREAD_TYPES)].concat();
    for row in 0..2 {
        let column = |fields: &Json, name: &str| fields.find("field", name).cloned();
        let Some(expected) = expected.path(&["schema", "fields"]).and_then(|all| all.item(row))
        else {
            return;
        };
        let Some(expected) = expected.field("fields") else { return };
        let Some(found) = found.field_mut("schema").and_then(|schema| schema.field_mut("fields"))
        else {
            return;
        };
        let Some(Json::Array(found)) = found.item_mut(row).and_then(|row| row.field_mut("fields"))
        else {
            return;
        };
        found.retain(|found| {
            let Some(Json::Text(name)) = found.field("field") else { return true };
            !left_out.contains(&name.as_str()) || column(expected, name).is_some()
        });
        for found in found {
            let Some(Json::Text(name)) = found.field("field").cloned() else { continue };
            if misread.contains(&name.as_str()) {
                *found = column(expected, &name).expect("both have the column");
            }
        }
    }
}

fn settle_row(table: &str, expected: &Json, found: &mut Json) {
    let of_table = |cells: Cells| columns_of(table, cells);
    let Json::Object(fields) = found else { return };
    let left_out = of_table(LEFT_OUT);
    fields.retain(|(name, _)| !left_out.contains(&name.as_str()) || expected.field(name).is_some());
    for (name, value) in fields {
        let Some(expected) = expected.field(name) else { continue };
        let is_in = |cells: Cells| of_table(cells).contains(&name.as_str());
        let differs = (is_in(UNCHANGED) && *expected == Json::Null)
            || (is_in(LOST) && *value != Json::Null)
            || is_in(SHAPES)
            || (is_in(DEFAULTS) && *value == Json::Null)
            || (is_in(REALS) && is_same_real(expected, value));
        if differs {
            value.clone_from(expected);
        }
    }
}

/// Java 17 writes some numbers with a digit more than it takes to tell them from their neighbours.
fn is_same_real(expected: &Json, found: &Json) -> bool {
    let (Json::Number(expected), Json::Number(found)) = (expected, found) else { return false };
    expected.parse::<f32>() == found.parse::<f32>()
}

fn settle_key_headers(expected: &Record, found: &mut Record) {
    for (name, value) in &mut found.headers {
        if ["__debezium.newkey", "__debezium.oldkey"].contains(&name.as_str()) {
            let same = expected.headers.iter().find(|(expected, _)| expected == name);
            value.clone_from(&same.expect("both have the header").1);
        }
    }
}

/// Debezium counts messages under the name of a class of its own, and no rows without columns.
fn settle_collections(expected: &Json, found: &mut Json) {
    const OTHER_NAMES: [&str; 2] = ["LOGICAL_DECODING_MESSAGE", "public.empty"];
    let Some(Json::Array(collections)) = found.field("data_collections") else { return };
    let is_other = |collection: &Json| {
        let name = collection.field("data_collection");
        matches!(name, Some(Json::Text(name)) if OTHER_NAMES.contains(&name.as_str()))
    };
    if collections.iter().any(is_other) {
        for name in ["data_collections", "event_count"] {
            let same = expected.field(name).expect("both have it").clone();
            *found.field_mut(name).expect("both have it") = same;
        }
    }
}
