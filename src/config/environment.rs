//! Environment variables as a source of settings.
//!
//! `ROWCAST_SECTION__KEY` sets `section.key`. `DATABASE_URL` and `KAFKA_BROKERS`, which many
//! platforms set, are read below these. An unknown variable with our prefix is refused, because a
//! misspelt one would otherwise be silently ignored.

use std::ffi::OsString;

use super::fault::{Fault, Origin, Problem};
use super::keys::{self, KEYS, Key, Kind, PREFIX, nearest};
use super::tree::Node;
use super::walk::{Layer, walk};

/// Names the configuration file; read before the others.
pub(super) const CONFIG_VARIABLE: &str = "ROWCAST_CONFIG";

/// Variables of other programs that set a key of ours; an empty one counts as unset, since
/// compose files and CI systems often pass them on empty.
const FOREIGN: &[(&str, &[&str])] =
    &[("DATABASE_URL", &["postgres", "url"]), ("KAFKA_BROKERS", &["kafka", "brokers"])];

/// A short name that takes precedence over the long one.
const SHORT: &[(&str, &[&str])] = &[("ROWCAST_LOG", &["log", "level"])];

/// Prefixes of variables that the test suite, the demo and the benchmarks use.
const ELSEWHERE: &[&str] = &[
    "ROWCAST_TEST_",
    "ROWCAST_DEMO_",
    "ROWCAST_BENCH_",
    // Used by the scripts that fetch servers, run the tests and start the containers.
    "ROWCAST_CACHE",
    "ROWCAST_REQUIRE_",
    "ROWCAST_BIN",
    "ROWCAST_IMAGE",
    "ROWCAST_PORT",
];

/// A set of environment variables.
pub(super) type Variables = Vec<(OsString, OsString)>;

/// The value of one variable, if it is set and valid UTF-8.
pub(super) fn variable<'a>(variables: &'a Variables, name: &str) -> Option<&'a str> {
    variables.iter().find(|(key, _)| key == name).and_then(|(_, value)| value.to_str())
}

/// The layers of the environment, in rising precedence.
pub(super) fn layers(variables: &Variables) -> Vec<Layer> {
    let mut foreign = Layer::default();
    let mut own = Layer::default();
    let mut short = Layer::default();
    let mut sorted: Vec<_> = variables.iter().collect();
    sorted.sort();
    for (name, value) in sorted {
        let Some(name) = name.to_str() else { continue };
        let alias = |list: &[(&str, &'static [&'static str])]| {
            list.iter().find(|(alias, _)| *alias == name).map(|(_, path)| owned(path))
        };
        if let Some(path) = alias(FOREIGN) {
            if !value.is_empty() {
                add(&mut foreign, name, value, &path);
            }
        } else if let Some(path) = alias(SHORT) {
            add(&mut short, name, value, &path);
        } else if is_ours(name) {
            match path_of(name) {
                Ok(path) => add(&mut own, name, value, &path),
                Err(fault) => problem(&mut own, name, fault),
            }
        }
    }
    vec![foreign, own, short]
}

fn is_ours(name: &str) -> bool {
    name.starts_with(PREFIX)
        && name != CONFIG_VARIABLE
        && !ELSEWHERE.iter().any(|prefix| name.starts_with(prefix))
}

/// The path of keys that the variable of this name sets.
fn path_of(name: &str) -> Result<Vec<String>, Fault> {
    let parts: Vec<String> =
        name[PREFIX.len()..].split("__").map(str::to_ascii_lowercase).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    match parts.as_slice() {
        ["tables", _, ..] => Err(Fault::TableVariable),
        [name] if keys::find("", name).is_some() => Ok(owned(&parts)),
        [section, name] if keys::find(section, name).is_some() => Ok(owned(&parts)),
        [section, name, rest @ ..] if keys::find(section, name).is_some_and(takes_names) => {
            // No librdkafka property and no topic setting has an underscore in its name.
            let inner = rest.join("_").replace('_', ".");
            Ok(owned(&[section, name, &inner]))
        }
        _ => {
            let known = KEYS.iter().map(Key::variable);
            let shorts = SHORT.iter().map(|(name, _)| (*name).to_owned());
            let known = known.chain(shorts).chain([CONFIG_VARIABLE.to_owned()]);
            Err(Fault::UnknownVariable { suggestion: nearest(name, known) })
        }
    }
}

fn takes_names(key: &Key) -> bool {
    matches!(key.kind, Kind::Texts | Kind::Properties | Kind::PropertyFiles)
}

fn add(layer: &mut Layer, name: &str, value: &OsString, path: &[String]) {
    let Some(value) = value.to_str() else { return problem(layer, name, Fault::Encoding) };
    let origin = |_line| Origin::Variable(name.to_owned());
    let found = walk(&Node::at(path, Node::raw(value)), &origin);
    layer.settings.extend(found.settings);
    layer.problems.extend(found.problems);
}

fn problem(layer: &mut Layer, name: &str, fault: Fault) {
    let origin = Origin::Variable(name.to_owned());
    layer.problems.push(Problem { origin, key: String::new(), fault });
}

fn owned(path: &[&str]) -> Vec<String> {
    path.iter().map(|&part| part.to_owned()).collect()
}
