//! Two lists of records beside each other, topic by topic.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::json::Json;
use crate::record::Record;

/// Differences that are told; the others are counted.
const SHOWN: usize = 40;

/// How `found` differs from `expected`; nothing when it does not. `settle` is asked for each pair
/// before it is compared, to take out what is known to differ.
pub(crate) fn differences(
    expected: &[Record],
    found: &[Record],
    settle: impl Fn(&mut Record, &mut Record),
) -> Option<String> {
    let mut all = Vec::new();
    let (expected, found) = (by_topic(expected), by_topic(found));
    let none = Vec::new();
    let mut topics: Vec<&str> = expected.keys().chain(found.keys()).copied().collect();
    topics.sort_unstable();
    topics.dedup();
    for topic in topics {
        let (expected, found) =
            (expected.get(topic).unwrap_or(&none), found.get(topic).unwrap_or(&none));
        for (place, (&expected, &found)) in expected.iter().zip(found).enumerate() {
            let (mut expected, mut found) = (expected.clone(), found.clone());
            settle(&mut expected, &mut found);
            let key = found.key.as_ref().map_or(Json::Null, Json::clone);
            let path = format!("{topic} #{place} {key} ");
            expected.to_json().differences(&found.to_json(), &path, &mut all);
        }
        if expected.len() != found.len() {
            let (expected, found) = (expected.len(), found.len());
            all.push(format!("{topic}: {found} records instead of {expected}"));
        }
    }
    (!all.is_empty()).then(|| {
        let mut text = format!("{} differences\n", all.len());
        for difference in all.iter().take(SHOWN) {
            writeln!(text, "  {difference}").expect("write to a text");
        }
        text
    })
}

fn by_topic(records: &[Record]) -> BTreeMap<&str, Vec<&Record>> {
    let mut topics: BTreeMap<&str, Vec<&Record>> = BTreeMap::new();
    for record in records {
        topics.entry(&record.topic).or_default().push(record);
    }
    topics
}
