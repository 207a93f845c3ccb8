//! JSON, in all the forms that Postgres takes and does not normalise.

use rand::RngExt as _;
use rand::rngs::StdRng;

use super::many;

pub(super) const DOCUMENTS: &[&str] = &[
    "null",
    "true",
    "\"\"",
    "[]",
    "{}",
    "0",
    "-1.50",
    "1e3",
    "12345678901234567890.12345678901234567890",
    r#"{"a": [1, {"b": null}], "é\"\\": "\u00e9\ud83d\ude00\n"}"#,
    "[[[]], [null]]",
];

/// JSON with blanks, line breaks, repeated keys and long numbers.
pub(super) fn document(random: &mut StdRng, depth: usize, breaks: bool) -> String {
    let blank =
        |random: &mut StdRng| ["", " ", if breaks { "\n" } else { "" }][random.random_range(0..3)];
    let (before, after) = (blank(random), blank(random));
    let kind = if depth == 0 { random.random_range(0..4) } else { random.random_range(0..8) };
    let inner = match kind {
        0 => ["null", "true", "false"][random.random_range(0..3)].to_owned(),
        1 => random.random::<i64>().to_string(),
        2 => format!(
            "{}.{:03}e{}",
            random.random::<i16>(),
            random.random_range(0..1000),
            random.random_range(-20..20)
        ),
        3 => word(random),
        4 | 5 => format!("[{}]", many(random, 0..4, ",", |r| document(r, depth - 1, breaks))),
        _ => format!(
            "{{{}}}",
            many(random, 0..4, ",", |r| format!("{}:{}", word(r), document(r, depth - 1, breaks)))
        ),
    };
    format!("{before}{inner}{after}")
}

fn word(random: &mut StdRng) -> String {
    ["\"a\"", "\"\"", "\"b \\\" \\\\ \\u00e9 \\n\"", "\"é😀\"", "\"\\ud83d\\ude00\""]
        [random.random_range(0..5)]
    .to_owned()
}
