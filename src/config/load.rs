//! Reads the configuration from all of its sources.
//!
//! In rising precedence: the defaults, one file, the environment, the command line. Each source is
//! checked completely before they are merged, even where another overrides it, so that a fault in a
//! file does not stay hidden until the overriding variable is removed.
//!
//! Not here: files that settings name, such as a password's; `resolved` reads those when needed.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::environment::{self, CONFIG_VARIABLE};
use super::fault::{Fault, LoadError, Origin, Problem};
use super::tree::Node;
use super::walk::{Layer, Setting, dotted, walk};
use super::{Config, toml, yaml};

/// The file names that are tried in the current directory if none is given.
const USUAL_FILES: [&str; 3] = ["rowcast.toml", "rowcast.yaml", "rowcast.yml"];

/// The sources of settings.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file given on the command line.
    pub file: Option<PathBuf>,
    /// The directory in which the default file names are tried.
    pub directory: PathBuf,
    /// The environment.
    pub environment: Vec<(OsString, OsString)>,
    /// Settings from the command line, in order.
    pub flags: Vec<FlagSetting>,
}

/// A setting from the command line.
#[derive(Debug, Clone)]
pub struct FlagSetting {
    /// The flag, as error messages show it: `--set`, `--brokers`.
    pub flag: String,
    /// The dotted key.
    pub key: String,
    /// The value, as text.
    pub value: super::Secret,
}

impl Sources {
    /// The sources of this process: its directory and environment, with a file and flags from its
    /// command line.
    #[must_use]
    pub fn of_process(file: Option<PathBuf>, flags: Vec<FlagSetting>) -> Self {
        let environment = std::env::vars_os().collect();
        Self { file, directory: PathBuf::new(), environment, flags }
    }
}

/// A configuration with the origin of each of its values.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Where each value that is not a default was set.
    pub origins: Origins,
}

/// The origins of values, by the path of the key.
#[derive(Debug, Clone, Default)]
pub struct Origins(pub(super) BTreeMap<Vec<String>, Origin>);

impl Origins {
    /// Where the value at this path was set.
    #[must_use]
    pub fn of(&self, path: &[&str]) -> &Origin {
        let path: Vec<String> = path.iter().map(|&part| part.to_owned()).collect();
        self.0.get(&path).unwrap_or(&Origin::Default)
    }
}

/// Reads, checks and merges all sources.
///
/// # Errors
/// With every problem of every source.
pub fn load(sources: &Sources) -> Result<Loaded, LoadError> {
    let mut layers = vec![file_layer(sources)];
    layers.extend(environment::layers(&sources.environment));
    layers.extend(sources.flags.iter().map(flag_layer));

    let mut problems: Vec<Problem> = Vec::new();
    let mut origins = BTreeMap::new();
    for layer in &mut layers {
        problems.append(&mut layer.problems);
        for setting in &layer.settings {
            origins.insert(setting.path.clone(), setting.origin.clone());
        }
    }
    problems.extend(clashes(&origins));
    if !problems.is_empty() {
        return Err(LoadError { problems });
    }

    let merged = layers.iter().fold(Figment::new(), |figment, layer| figment.merge(Merge(layer)));
    let config = merged.extract::<Config>().map_err(|error| unchecked(error, &origins))?;
    Ok(Loaded { config, origins: Origins(origins) })
}

/// A fault that `check` missed: the rules in `keys` are wrong then, but the user still gets a clear
/// error.
fn unchecked(error: figment::Error, origins: &BTreeMap<Vec<String>, Origin>) -> LoadError {
    let problems = error.into_iter().map(|error| Problem {
        origin: origins.get(&error.path).cloned().unwrap_or(Origin::Default),
        key: dotted(&error.path),
        // Only the expected form: figment's own text may quote the value.
        fault: Fault::Form { expected: "another form of value", found: "this one" },
    });
    LoadError { problems: problems.collect() }
}

fn file_layer(sources: &Sources) -> Layer {
    let file = match find_file(sources) {
        Ok(Some(file)) => file,
        Ok(None) => return Layer::default(),
        Err(problem) => return Layer { problems: vec![*problem], ..Layer::default() },
    };
    let origin = |line| Origin::File { path: file.clone(), line };
    let refused = |line, fault| Layer {
        problems: vec![Problem { origin: origin(line), key: String::new(), fault }],
        ..Layer::default()
    };
    let parse = match file.extension().and_then(|extension| extension.to_str()) {
        Some("toml") => toml::parse,
        Some("yaml" | "yml") => yaml::parse,
        _ => return refused(0, Fault::Extension),
    };
    let text = match std::fs::read_to_string(sources.directory.join(&file)) {
        Ok(text) => text,
        Err(error) => return refused(0, Fault::File { reason: error.to_string() }),
    };
    match parse(&text) {
        Ok(tree) => walk(&tree, &origin),
        Err(syntax) => refused(syntax.line, Fault::Syntax { reason: syntax.reason }),
    }
}

/// The file to read: the given one, else a default one if present.
fn find_file(sources: &Sources) -> Result<Option<PathBuf>, Box<Problem>> {
    if let Some(file) = &sources.file {
        return Ok(Some(file.clone()));
    }
    if let Some(file) = environment::variable(&sources.environment, CONFIG_VARIABLE) {
        return match file {
            "" => Err(refusal(Origin::Variable(CONFIG_VARIABLE.to_owned()), Fault::Empty)),
            file => Ok(Some(PathBuf::from(file))),
        };
    }
    let is_there = |name: &&str| sources.directory.join(name).exists();
    let present: Vec<&str> = USUAL_FILES.into_iter().filter(is_there).collect();
    match present.as_slice() {
        [] => Ok(None),
        [file] => Ok(Some(PathBuf::from(file))),
        [file, other, ..] => {
            let origin = Origin::File { path: PathBuf::from(file), line: 0 };
            Err(refusal(origin, Fault::TwoFiles { other: (*other).to_owned() }))
        }
    }
}

fn refusal(origin: Origin, fault: Fault) -> Box<Problem> {
    Box::new(Problem { origin, key: String::new(), fault })
}

fn flag_layer(setting: &FlagSetting) -> Layer {
    let origin = |_line| Origin::Flag(setting.flag.clone());
    match toml::parse_key(&setting.key) {
        Some(path) => {
            walk(&Node::at(&with_pattern(path), Node::raw(setting.value.expose())), &origin)
        }
        None => Layer {
            problems: vec![Problem {
                origin: origin(0),
                key: setting.key.clone(),
                fault: Fault::UnknownKey { suggestion: None },
            }],
            ..Layer::default()
        },
    }
}

/// `tables.public.rides.topic` as `tables."public.rides".topic`.
fn with_pattern(path: Vec<String>) -> Vec<String> {
    match path.as_slice() {
        [tables, schema, table, rest @ ..] if tables == "tables" && !schema.contains('.') => {
            let pattern = [tables.clone(), format!("{schema}.{table}")];
            [&pattern, rest].concat()
        }
        _ => path,
    }
}

/// The ways to set a property.
const WAYS: [&str; 3] = ["properties", "property_files", "property_commands"];

/// Properties that are set in more than one way.
fn clashes(origins: &BTreeMap<Vec<String>, Origin>) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (path, origin) in origins {
        let [section, way, name] = path.as_slice() else { continue };
        let own = WAYS.iter().position(|known| section == "kafka" && way == known);
        for &way in WAYS.iter().take(own.unwrap_or_default()) {
            let other = [section.clone(), way.to_owned(), name.clone()];
            if let Some(other) = origins.get(other.as_slice()) {
                let fault = Fault::Clash { way, other: other.clone() };
                problems.push(Problem { origin: origin.clone(), key: dotted(path), fault });
            }
        }
    }
    problems
}

/// A checked layer in figment's form.
struct Merge<'a>(&'a Layer);

impl Provider for Merge<'_> {
    fn metadata(&self) -> Metadata {
        Metadata::named("settings")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let mut root = Dict::new();
        for setting in &self.0.settings {
            insert(&mut root, setting);
        }
        Ok(Profile::Default.collect(root))
    }
}

fn insert(root: &mut Dict, Setting { path, value, .. }: &Setting) {
    let Some((last, parents)) = path.split_last() else { return };
    let mut dict = root;
    for part in parents {
        let child = dict.entry(part.clone()).or_insert_with(|| Value::from(Dict::new()));
        let Value::Dict(_, child) = child else { return };
        dict = child;
    }
    dict.insert(last.clone(), value.clone());
}

/// Parses any text as a file of either language, for fuzz and property tests.
#[cfg(test)]
pub(super) fn walk_text(text: &str) -> [Layer; 2] {
    let origin = |line| Origin::File { path: PathBuf::from("rowcast.toml"), line };
    [toml::parse(text), yaml::parse(text)].map(|tree| {
        let empty = Node { line: 1, data: super::tree::Data::Map(Vec::new()) };
        walk(&tree.unwrap_or(empty), &origin)
    })
}
