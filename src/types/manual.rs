//! Holds `docs/types.md` to the code: every row of its tables is run through the codecs.
//!
//! A table counts when its first columns are headed `Postgres` and `prints`. Its other columns are
//! named by a profile, or by a value of the switch in the heading above, which must have the same
//! result under both profiles.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::sample::select;

use super::{Codec, Forms, Placeholder, SchemaOf, TypeFacts, TypeKind, codec_for};
use crate::config::{Format, TypeProfile};

const MANUAL: &str = include_str!("../../docs/types.md");

/// Types of the user and of extensions, by names as in the manual.
const MADE: &[(&str, u32)] = &[
    ("an enum", 60_001),
    ("a domain over `numeric(8,2)`", 60_002),
    ("an array of an enum", 60_003),
    ("an array of that domain", 60_004),
    ("a composite", 60_005),
    ("`citext`", 60_010),
    ("`hstore`", 60_011),
    ("`ltree`", 60_012),
    ("`geometry`", 60_013),
    ("`geography`", 60_014),
    ("`vector`", 60_015),
    ("`halfvec`", 60_016),
    ("`sparsevec`", 60_017),
    ("`hstore[]`", 60_021),
    ("`geometry[]`", 60_023),
];

const BUILT_IN: &[(&str, u32)] = &[
    ("boolean", 16),
    ("smallint", 21),
    ("integer", 23),
    ("bigint", 20),
    ("oid", 26),
    ("xid", 28),
    ("cid", 29),
    ("xid8", 5069),
    ("real", 700),
    ("double precision", 701),
    ("numeric", 1700),
    ("money", 790),
    ("text", 25),
    ("varchar", 1043),
    ("char", 1042),
    ("\"char\"", 18),
    ("name", 19),
    ("uuid", 2950),
    ("xml", 142),
    ("json", 114),
    ("jsonb", 3802),
    ("bytea", 17),
    ("bit", 1560),
    ("bit varying", 1562),
    ("tsvector", 3614),
    ("tsquery", 3615),
    ("inet", 869),
    ("cidr", 650),
    ("macaddr", 829),
    ("date", 1082),
    ("time", 1083),
    ("time with time zone", 1266),
    ("timestamp", 1114),
    ("timestamp with time zone", 1184),
    ("interval", 1186),
    ("point", 600),
    ("box", 603),
    ("circle", 718),
    ("int4range", 3904),
    ("tsrange", 3908),
    ("int4multirange", 4451),
    ("regclass", 2205),
    ("int2vector", 22),
    ("oidvector", 30),
    ("pg_lsn", 3220),
    ("integer[]", 1007),
    ("text[]", 1009),
    ("numeric[]", 1231),
    ("timestamp[]", 1115),
    ("json[]", 199),
    ("box[]", 1020),
];

fn facts() -> BTreeMap<u32, TypeFacts> {
    let array = |element, delimiter| TypeKind::Array { element, delimiter };
    let labels = vec!["calm".to_owned(), "glad".to_owned()];
    let domain = TypeKind::Domain { base: 1700, typmod: numeric_typmod(8, 2) };
    let kinds = MADE.iter().map(|&(name, oid)| {
        let kind = match oid {
            60_001 => TypeKind::Enum { labels: labels.clone() },
            60_002 => domain.clone(),
            60_003 => array(60_001, b','),
            60_004 => array(60_002, b','),
            60_005 => TypeKind::Composite,
            60_021 => array(60_011, b','),
            60_023 => array(60_013, b':'),
            _ => TypeKind::Base,
        };
        let name = name.trim_matches('`').to_owned();
        (oid, TypeFacts { oid, schema: "public".to_owned(), name, kind })
    });
    kinds.collect()
}

fn numeric_typmod(precision: i32, scale: i32) -> i32 {
    (precision << 16 | scale & 0x7FF) + 4
}

/// The OID and type modifier of a type as in the manual.
fn column(name: &str) -> (u32, i32) {
    if let Some((_, oid)) = MADE.iter().find(|(made, _)| *made == name) {
        return (*oid, -1);
    }
    let name = name.trim_matches('`');
    let (base, modifiers) = match name.split_once('(') {
        Some((base, rest)) => {
            let (modifiers, rest) = rest.split_once(')').expect("a closing bracket");
            let parts = modifiers.split(',').map(|part| part.parse().expect("a number"));
            (format!("{base}{rest}"), parts.collect::<Vec<i32>>())
        }
        None => (name.to_owned(), Vec::new()),
    };
    let found = BUILT_IN.iter().find(|(built_in, _)| *built_in == base);
    let oid = found.unwrap_or_else(|| panic!("the type {name:?} of the manual")).1;
    let typmod = match (base.as_str(), modifiers.as_slice()) {
        (_, []) => -1,
        ("numeric" | "numeric[]", &[precision]) => numeric_typmod(precision, 0),
        ("numeric" | "numeric[]", &[precision, scale]) => numeric_typmod(precision, scale),
        (_, &[only, ..]) => only,
    };
    (oid, typmod)
}

/// The formats that a column of a table stands for.
fn formats(switch: Option<&str>, heading: &str) -> Vec<Format> {
    let set = |name: &str, value: &str, base: &Format| {
        let mut format = serde_json::to_value(base).unwrap();
        let value = value.parse::<bool>().map_or_else(|_| value.into(), serde_json::Value::from);
        format.as_object_mut().unwrap().insert(name.to_owned(), value);
        serde_json::from_value::<Format>(format).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    match switch {
        None => vec![set("types", heading, &Format::default())],
        Some(switch) => [TypeProfile::Readable, TypeProfile::Debezium]
            .map(|types| set(switch, heading, &Format { types, ..Format::default() }))
            .into(),
    }
}

/// The cells of a row; a pipe inside of one is written `\|`.
fn cells(row: &str) -> Vec<String> {
    let row = row.trim().trim_start_matches('|').trim_end_matches('|');
    let row = row.replace("\\|", "\u{1}");
    row.split('|').map(|cell| cell.trim().replace('\u{1}', "|")).collect()
}

/// The content of a cell, without the backticks around it.
fn code(cell: &str) -> &str {
    cell.strip_prefix('`').and_then(|cell| cell.strip_suffix('`')).unwrap_or(cell)
}

fn check_row(
    switch: Option<&str>,
    headings: &[String],
    row: &[String],
    facts: &BTreeMap<u32, TypeFacts>,
) {
    let (types, wire) = (&row[0], code(&row[1]));
    let types = types.split_once(" (Post").map_or(types.as_str(), |(types, _)| types);
    let types = types.split_once(" (pgv").map_or(types, |(types, _)| types);
    for name in types.split("`, ").map(|name| {
        let open = name.starts_with('`') && !name.ends_with('`');
        if open { format!("{name}`") } else { name.to_owned() }
    }) {
        let (oid, typmod) = column(&name);
        for (heading, expected) in headings.iter().zip(row).skip(2) {
            for format in formats(switch, code(heading)) {
                let codec = codec_for(oid, typmod, facts, &Forms::of(&format));
                let mut out = Vec::new();
                let written = codec.write_json(wire.as_bytes(), &mut out);
                let found = match written {
                    Ok(()) => String::from_utf8(out).unwrap(),
                    Err(_) => "refused".to_owned(),
                };
                let at = format!("{name} of {wire:?} as {heading} under {:?}", format.types);
                assert_eq!(found, code(expected), "{at}");
            }
        }
    }
}

#[test]
fn every_row_of_the_manual_is_what_the_codecs_write() {
    let facts = facts();
    let mut switch = None;
    let mut headings: Option<Vec<String>> = None;
    let mut rows = 0;
    let mut switches = BTreeSet::new();
    for line in MANUAL.lines() {
        if let Some(heading) = line.strip_prefix("### ") {
            switch = Some(code(heading));
            switches.insert(code(heading));
        } else if line.starts_with("## ") {
            switch = None;
        }
        if !line.starts_with('|') {
            headings = None;
        } else if line.starts_with("| Postgres | prints |") {
            headings = Some(cells(line));
        } else if let Some(headings) = headings.as_deref().filter(|_| !line.starts_with("|---")) {
            let row = cells(line);
            assert_eq!(row.len(), headings.len(), "{line}");
            check_row(switch, headings, &row, &facts);
            rows += 1;
        }
    }
    assert!(rows > 90, "{rows} rows");
    let keys = serde_json::to_value(Format::default()).unwrap();
    let keys = keys.as_object().unwrap().keys();
    let modes: BTreeSet<&str> = keys
        .map(String::as_str)
        .filter(|key| key.ends_with("_mode") || *key == "include_unknown_datatypes")
        .collect();
    assert_eq!(switches, modes, "a table for each switch");
}

/// Every codec of a row of the manual, with what the server prints for it.
fn samples() -> Vec<(Codec, Vec<u8>)> {
    let facts = facts();
    let switches = ["decimal_handling_mode", "time_precision_mode", "interval_handling_mode"];
    let modes = [["precise", "adaptive", "numeric"], ["double", "nanoseconds", "string"]];
    let modes = modes.into_iter().chain([["string", "isostring", "string"]]);
    let forms: Vec<Forms> = modes
        .flat_map(|modes| {
            let set = switches.into_iter().zip(modes);
            let profiles = [TypeProfile::Readable, TypeProfile::Debezium];
            profiles.map(|types| {
                let format = Format { types, include_unknown_datatypes: true, ..Format::default() };
                let mut format = serde_json::to_value(format).unwrap();
                for (switch, mode) in set.clone() {
                    format[switch] = mode.into();
                }
                Forms::of(&serde_json::from_value(format).unwrap())
            })
        })
        .chain([Forms::of(&Format::default())])
        .collect();
    let mut samples = Vec::new();
    for row in MANUAL.lines().filter(|line| line.starts_with("| `") || line.starts_with("| a")) {
        let row = cells(row);
        let known =
            |name: &str| MADE.iter().any(|(made, _)| *made == name) || name.starts_with('`');
        if row.len() < 4 || !known(&row[0]) || row[0].contains(", ") || row[0].ends_with(')') {
            continue;
        }
        let (oid, typmod) = column(&row[0]);
        samples.extend(forms.iter().map(|forms| {
            (codec_for(oid, typmod, &facts, forms), code(&row[1]).as_bytes().to_vec())
        }));
    }
    assert!(samples.len() > 300, "{} samples", samples.len());
    samples
}

#[test]
fn whatever_stands_for_a_value_is_json() {
    let placeholder = Placeholder::parse("hex:22ca00").unwrap();
    let of = SchemaOf { field: Some("\"a"), ..SchemaOf::default() };
    for (codec, _) in samples() {
        let mut out = b"[".to_vec();
        codec.write_filler(&mut out);
        out.push(b',');
        codec.write_placeholder(&placeholder, &mut out);
        out.push(b',');
        codec.write_schema(&of, &mut out);
        out.push(b']');
        serde_json::from_slice::<[serde_json::Value; 3]>(&out)
            .unwrap_or_else(|error| panic!("{codec:?}: {error}: {out:?}"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// What a server never sends: one of its values with bytes put in, taken out and turned over.
    #[test]
    fn any_bytes_are_json_or_an_error(
        edits in proptest::collection::vec((any::<u16>(), 0..3_u8, any::<u8>()), 0..4),
        plausible in select(b"0123456789-+.:eE,{}[]()\"\\'=> NULLZPYMDTHS/".to_vec()),
    ) {
        for (codec, sample) in samples() {
            let mut wire = sample;
            for &(at, edit, byte) in &edits {
                let at = usize::from(at) % (wire.len() + 1);
                let byte = if byte < 0xC0 { plausible } else { byte };
                match edit {
                    0 => wire.insert(at, byte),
                    1 if at < wire.len() => drop(wire.remove(at)),
                    2 if at < wire.len() => wire[at] = byte,
                    _ => wire.truncate(at),
                }
            }
            let mut out = Vec::new();
            if codec.write_json(&wire, &mut out).is_ok() {
                let read = serde_json::from_slice::<serde_json::Value>(&out);
                // A number may be too large for a double, which the grammar allows.
                let fits = read.as_ref().err().is_none_or(|error| {
                    error.to_string().starts_with("number out of range")
                });
                prop_assert!(fits, "{:?} made {:?} of {:?}", codec, out, wire);
            }
            out.clear();
            if codec.write_bare(&wire, &mut out).is_ok() {
                prop_assert!(std::str::from_utf8(&out).is_ok());
            }
        }
    }
}
