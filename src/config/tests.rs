//! The promises of loading: precedence, and refusals that name their place.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// A directory with one file in it, and the sources that find it.
struct Case {
    directory: tempfile::TempDir,
    sources: Sources,
}

impl Case {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let sources = Sources { directory: directory.path().to_owned(), ..Sources::default() };
        Self { directory, sources }
    }

    fn file(self, name: &str, text: &str) -> Self {
        std::fs::write(self.directory.path().join(name), text).unwrap();
        self
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.sources.environment.push((OsString::from(name), OsString::from(value)));
        self
    }

    fn flag(mut self, key: &str, value: &str) -> Self {
        let (flag, key) = ("--set".to_owned(), key.to_owned());
        self.sources.flags.push(FlagSetting { flag, key, value: value.to_owned().into() });
        self
    }

    fn load(&self) -> Config {
        load(&self.sources).unwrap_or_else(|error| panic!("{error}")).config
    }

    fn problems(&self) -> Vec<String> {
        load(&self.sources).unwrap_err().problems.iter().map(ToString::to_string).collect()
    }
}

fn toml(text: &str) -> Case {
    Case::new().file("rowcast.toml", text)
}

fn yaml(text: &str) -> Case {
    Case::new().file("rowcast.yaml", text)
}

#[test]
fn nothing_set_gives_the_defaults() {
    assert_eq!(Case::new().load(), Config::default());
    assert_eq!(toml("[postgres]\n[kafka]\n").load(), Config::default());
    assert_eq!(yaml("postgres:\n").load(), Config::default());
}

#[test]
fn later_sources_outweigh_earlier_ones() {
    let file = || toml("[postgres]\nurl = \"file\"\n[kafka]\nbrokers = \"file\"\n");
    let url = |case: &Case| case.load().postgres.url.unwrap().expose().to_owned();
    assert_eq!(url(&file()), "file");
    let case = file().variable("DATABASE_URL", "foreign");
    assert_eq!(url(&case), "foreign");
    let case = case.variable("ROWCAST_POSTGRES__URL", "own");
    assert_eq!(url(&case), "own");
    let case = case.flag("postgres.url", "first");
    assert_eq!(url(&case), "first");
    let case = case.flag("postgres.url", "second");
    assert_eq!(url(&case), "second");
    assert_eq!(case.load().kafka.brokers.as_deref(), Some("file"));

    let case = Case::new().variable("ROWCAST_LOG__LEVEL", "warn").variable("ROWCAST_LOG", "debug");
    assert_eq!(case.load().log.level, "debug");
    assert_eq!(case.flag("log.level", "trace").load().log.level, "trace");
}

#[test]
fn the_sidecar_needs_two_variables_and_no_file() {
    let case = Case::new()
        .variable("DATABASE_URL", "postgres:///taxi")
        .variable("KAFKA_BROKERS", "k:9092");
    let resolved = case.load().resolve("taxi").unwrap();
    assert_eq!((resolved.slot.as_str(), resolved.brokers.as_str()), ("rowcast_taxi", "k:9092"));
    let unset = Case::new().variable("DATABASE_URL", "").variable("KAFKA_BROKERS", "");
    assert_eq!(unset.load(), Config::default());
}

#[test]
fn every_origin_is_known() {
    let case = toml("\n[postgres]\nslot = \"s\"\n")
        .variable("ROWCAST_TOPICS__PARTITIONS", "3")
        .flag("name", "n");
    let origins = load(&case.sources).unwrap().origins;
    assert_eq!(origins.of(&["postgres", "slot"]).to_string(), "rowcast.toml:3");
    assert_eq!(origins.of(&["topics", "partitions"]).to_string(), "ROWCAST_TOPICS__PARTITIONS");
    assert_eq!(origins.of(&["name"]).to_string(), "--set");
    assert_eq!(origins.of(&["log", "level"]), &Origin::Default);
}

#[test]
fn toml_yaml_variables_and_flags_say_the_same_things() {
    let expected = {
        let mut config = Config { name: Some("n".to_owned()), ..Config::default() };
        config.postgres.tables = vec!["a.b".to_owned(), "c.*".to_owned()];
        config.postgres.status_interval = Duration::from_millis(1500);
        config.postgres.manage = false;
        config.kafka.properties.insert("linger.ms".to_owned(), "5".to_owned().into());
        config.topics.replication_factor = 3;
        config.topics.settings.insert("retention.ms".to_owned(), "60000".to_owned());
        config.format.value = ValueFormat::Flat;
        config.admin.listen = "0.0.0.0:80".parse().unwrap();
        let table = Table { partitions: Some(2), ..Table::default() };
        config.tables.insert("public.rides".to_owned(), table);
        config
    };
    let from_toml = toml(
        "name = \"n\"\n\
         postgres = { tables = [\"a.b\", \"c.*\"], status_interval = \"1500ms\", manage = false }\n\
         kafka.properties.linger.ms = 5\n\
         [topics]\nreplication_factor = 3\n[topics.settings]\n\"retention.ms\" = 60000\n\
         [format]\nvalue = \"flat\"\n[admin]\nlisten = \"0.0.0.0:80\"\n\
         [tables.public.rides]\npartitions = 2\n",
    );
    assert_eq!(from_toml.load(), expected);
    let from_yaml = yaml(
        "name: n\npostgres:\n  tables: [a.b, 'c.*']\n  status_interval: 1500ms\n  manage: false\n\
         kafka:\n  properties:\n    linger.ms: 5\n\
         topics:\n  replication_factor: 3\n  settings:\n    retention.ms: 60000\n\
         format:\n  value: flat\nadmin:\n  listen: 0.0.0.0:80\n\
         tables:\n  public.rides:\n    partitions: 2\n",
    );
    assert_eq!(from_yaml.load(), expected);
    let from_variables = Case::new()
        .variable("ROWCAST_NAME", "n")
        .variable("ROWCAST_POSTGRES__TABLES", "a.b,c.*")
        .variable("ROWCAST_POSTGRES__STATUS_INTERVAL", "1500ms")
        .variable("ROWCAST_POSTGRES__MANAGE", "false")
        .variable("ROWCAST_KAFKA__PROPERTIES__LINGER_MS", "5")
        .variable("ROWCAST_TOPICS__REPLICATION_FACTOR", "3")
        .variable("ROWCAST_TOPICS__SETTINGS", "{ \"retention.ms\" = 60000 }")
        .variable("ROWCAST_FORMAT__VALUE", "flat")
        .variable("ROWCAST_ADMIN__LISTEN", "0.0.0.0:80")
        .variable("ROWCAST_TABLES", "{ \"public.rides\" = { partitions = 2 } }")
        .variable("ROWCAST_TEST_POSTGRES", "15")
        .variable("PATH", "/bin");
    assert_eq!(from_variables.load(), expected);
    let from_flags = Case::new()
        .flag("name", "n")
        .flag("postgres.tables", "[\"a.b\", \"c.*\"]")
        .flag("postgres.status_interval", "1500ms")
        .flag("postgres.manage", "false")
        .flag("kafka.properties.linger.ms", "5")
        .flag("topics.replication_factor", "3")
        .flag("topics.settings.\"retention.ms\"", "60000")
        .flag("format.value", "flat")
        .flag("admin.listen", "0.0.0.0:80")
        .flag("tables.public.rides.partitions", "2");
    assert_eq!(from_flags.load(), expected);
}

#[test]
fn all_problems_of_all_sources_are_told_at_once() {
    let case = toml("[postgres]\nstatus_interval = 10\nslto = \"s\"\n")
        .variable("ROWCAST_TOPICS__PARTITION", "2")
        .flag("topics.partitions", "0");
    assert_eq!(
        load(&case.sources).unwrap_err().to_string(),
        "reading the configuration: 4 problems\n  \
         rowcast.toml:2: postgres.status_interval: 10 has no unit; write \"10s\" for seconds \
         (units: ms, s, m, h)\n  \
         rowcast.toml:3: postgres.slto: unknown key; did you mean postgres.slot?\n  \
         ROWCAST_TOPICS__PARTITION: unknown variable; did you mean ROWCAST_TOPICS__PARTITIONS?\n  \
         --set: topics.partitions: 0 is out of range: 1 to 2147483647"
    );
}

/// Texts of one file each, with the one problem it has.
const REFUSED: &[(&str, &str)] = &[
    ("nmae = \"a\"", "1: nmae: unknown key; did you mean name?"),
    ("slot = \"a\"", "1: slot: unknown key; did you mean postgres.slot?"),
    ("[postgers]\nslot = \"a\"", "1: postgers: unknown key; did you mean postgres?"),
    ("[topics]\ncolour = 1", "2: topics.colour: unknown key"),
    ("postgres = 1", "1: postgres: expected a table of keys, found an integer"),
    ("name = 1", "1: name: expected text, found an integer"),
    ("name = \"\"", "1: name: is set but empty; leave it out to get the default"),
    ("name = \"a\\nb\"", "1: name: contains a control character"),
    ("[postgres]\nurl = 5", "2: postgres.url: expected text, found an integer"),
    ("[postgres]\nmanage = \"true\"", "2: postgres.manage: expected true or false, found text"),
    (
        "[postgres]\nstatus_interval = \"10\"",
        "2: postgres.status_interval: 10 has no unit; write \"10s\" for seconds (units: ms, s, m, h)",
    ),
    (
        "[postgres]\nstatus_interval = \"10 parsecs\"",
        "2: postgres.status_interval: \"10 parsecs\" is not a duration; write a number and a unit \
         (ms, s, m, h) such as \"10s\"",
    ),
    (
        "[postgres]\nconnect_timeout = \"0s\"",
        "2: postgres.connect_timeout: 0s is out of range: 100ms to 10m",
    ),
    (
        "[postgres]\nslot = \"My-Slot\"",
        "2: postgres.slot: Postgres refuses the slot name \"My-Slot\"; a slot name is 1 to 63 \
         lower-case letters, digits and underscores",
    ),
    (
        "[postgres]\ntables = [\"rides\"]",
        "2: postgres.tables: \"rides\" names no schema; write \"public.rides\" or \"*.rides\"",
    ),
    (
        "[postgres]\ntables = [\"public.[a\"]",
        "2: postgres.tables: \"public.[a\" is not a valid glob: unclosed character class; missing ']'",
    ),
    (
        "[postgres]\ntables = []",
        "2: postgres.tables: the list is empty; name at least one table pattern, or leave the key \
         out",
    ),
    (
        "[postgres]\ntables = \"a.b\"",
        "2: postgres.tables: expected a list of table patterns, found text",
    ),
    (
        "memory = 64",
        "1: memory: 64 has no unit; write \"64MB\" for megabytes (units: kB, MB, GB, TB)",
    ),
    ("memory = \"1MB\"", "1: memory: 1MB is out of range: 8MB to 64GB"),
    (
        "memory = \"64 megs\"",
        "1: memory: \"64 megs\" is not a size; write a whole number and a unit (kB, MB, GB, TB) \
         such as \"64MB\"",
    ),
    (
        "[kafka]\nbrokers = \"a:b\"",
        "2: kafka.brokers: \"a:b\" is not a broker; write host:port, several with commas",
    ),
    (
        "[kafka.properties]\nacks = 1",
        "2: kafka.properties.acks: rowcast sets this property itself: nothing may be confirmed \
         to Postgres before all replicas have it",
    ),
    (
        "[kafka.properties]\n\"bootstrap.servers\" = \"a\"",
        "2: kafka.properties.\"bootstrap.servers\": rowcast sets this property itself: set \
         kafka.brokers instead",
    ),
    (
        "[kafka.properties]\n\"sasl.password\" = \"hunter2\"\n[kafka.property_files]\n\
         \"sasl.password\" = \"/a\"",
        "4: kafka.property_files.\"sasl.password\": kafka.properties sets this property too \
         (rowcast.toml:2); keep one of the two",
    ),
    (
        "[topics]\ntemplate = \"{prefix}.{tabel}\"",
        "2: topics.template: unknown placeholder {tabel}; use {prefix}, {database}, {schema} or \
         {table}",
    ),
    ("[topics]\npartitions = 0", "2: topics.partitions: 0 is out of range: 1 to 2147483647"),
    (
        "[topics]\nreplication_factor = 0",
        "2: topics.replication_factor: 0 is out of range: 1 to 32767, or -1",
    ),
    (
        "[format]\nvalue = \"flatt\"",
        "2: format.value: \"flatt\" is not one of debezium, debezium-schema, cloudevents, flat; did you mean flat?",
    ),
    (
        "[tables.\"public.rides\"]\n\nkey = []",
        "3: tables.\"public.rides\".key: the list is empty; name at least one column, or leave the \
         key out",
    ),
    (
        "[tables.\"public.rides\"]\nkey = [\"a\", \"a\"]",
        "2: tables.\"public.rides\".key: \"a\" is listed twice",
    ),
    (
        "[tables.\"public.rides\"]\ntopics = \"a\"",
        "2: tables.\"public.rides\".topics: unknown key; did you mean topic?",
    ),
    (
        "[tables.rides]\ntopic = \"a\"",
        "1: tables.rides: \"rides\" names no schema; write \"public.rides\" or \"*.rides\"",
    ),
    (
        "[admin]\nlisten = \"localhost:9464\"",
        "2: admin.listen: \"localhost:9464\" is not an IP address with a port such as \
         127.0.0.1:9464",
    ),
    (
        "[log]\nlevel = \"inof\"",
        "2: log.level: \"inof\" is not one of off, error, warn, info, debug, trace; did you mean \
         info?",
    ),
];

#[test]
fn a_wrong_file_is_refused_with_the_line_and_the_way_out() {
    for (text, expected) in REFUSED {
        assert_eq!(toml(text).problems(), [format!("rowcast.toml:{expected}")], "{text}");
    }
}

#[test]
fn yaml_is_refused_with_its_line_too() {
    for (text, expected) in [
        ("\nname: [a]\n", "2: name: expected text, found a list"),
        ("postgres:\n  manage: no\n", "2: postgres.manage: expected true or false, found text"),
        (
            "topics:\n  create: true\n  partitions: 0\n",
            "3: topics.partitions: 0 is out of range: 1 to 2147483647",
        ),
        ("name: a\nname: b\n", "2: duplicate key"),
    ] {
        assert_eq!(yaml(text).problems(), [format!("rowcast.yaml:{expected}")], "{text}");
    }
}

#[test]
fn a_wrong_variable_or_flag_is_named() {
    for (name, value, expected) in [
        ("ROWCAST_NMAE", "a", "unknown variable; did you mean ROWCAST_NAME?"),
        ("ROWCAST_POSTGRES_URL", "a", "unknown variable; did you mean ROWCAST_POSTGRES__URL?"),
        ("ROWCAST_COLOUR", "a", "unknown variable"),
        ("ROWCAST_NAME", "", "name: is set but empty; leave it out to get the default"),
        ("ROWCAST_TOPICS__PARTITIONS", "two", "topics.partitions: \"two\" is not an integer"),
        (
            "ROWCAST_POSTGRES__STATUS_INTERVAL",
            "10",
            "postgres.status_interval: 10 has no unit; write \"10s\" for seconds (units: ms, s, m, h)",
        ),
        (
            "ROWCAST_KAFKA__PROPERTIES",
            "linger.ms=5",
            "kafka.properties: expected a table of keys such as { \"a.b\" = \"c\" }, found text",
        ),
        (
            "ROWCAST_TABLES__PUBLIC_RIDES__TOPIC",
            "a",
            "table names do not survive in a variable's name; set ROWCAST_TABLES to an inline table: \
             { \"public.rides\" = { partitions = 2 } }",
        ),
    ] {
        let case = Case::new().variable(name, value);
        assert_eq!(case.problems(), [format!("{name}: {expected}")]);
    }
    assert_eq!(
        Case::new().flag("postgres.slto", "a").problems(),
        ["--set: postgres.slto: unknown key; did you mean postgres.slot?"]
    );
    assert_eq!(Case::new().flag("a b", "c").problems(), ["--set: a b: unknown key"]);
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_no_text_is_refused() {
    use std::os::unix::ffi::OsStringExt;
    let mut case = Case::new();
    let value = OsString::from_vec(vec![0xff]);
    case.sources.environment.push((OsString::from("ROWCAST_NAME"), value));
    assert_eq!(case.problems(), ["ROWCAST_NAME: is not valid UTF-8"]);
}

#[test]
fn the_file_is_found_or_its_absence_is_named() {
    let both = toml("").file("rowcast.yml", "");
    assert_eq!(
        both.problems(),
        ["rowcast.toml: rowcast.yml exists too; remove one, or name the one to use with \
          --config"]
    );
    assert_eq!(
        Case::new().variable("ROWCAST_CONFIG", "gone.toml").problems(),
        ["gone.toml: cannot read the file: No such file or directory (os error 2)"]
    );
    let named = Case::new().file("other.yaml", "name: a").file("rowcast.toml", "name = \"b\"");
    assert_eq!(named.load().name.as_deref(), Some("b"));
    let mut named = named.variable("ROWCAST_CONFIG", "other.yaml");
    assert_eq!(named.load().name.as_deref(), Some("a"));
    named.sources.file = Some(Path::new("rowcast.toml").to_owned());
    assert_eq!(named.load().name.as_deref(), Some("b"));
    let json = Case::new().file("rowcast.json", "{}").variable("ROWCAST_CONFIG", "rowcast.json");
    assert_eq!(json.problems(), ["rowcast.json: the file's name must end in .toml, .yaml or .yml"]);
}

#[test]
fn secrets_are_in_no_debug_text_no_error_and_no_listing() {
    let case = toml(
        "[postgres]\nurl = \"postgres://u:hunter2@h/db\"\n[kafka.properties]\n\
         \"sasl.password\" = \"hunter2\"\n\"sasl.username\" = \"user\"\n",
    )
    .flag("kafka.properties.\"ssl.key.password\"", "hunter2");
    let loaded = load(&case.sources).unwrap();
    let entries = listing::entries(&loaded);
    let texts = [
        format!("{loaded:?}"),
        format!("{:?}", case.sources.flags),
        format!("{entries:?}"),
        listing::text(&entries),
        listing::toml(&entries),
        listing::json(&entries),
        serde_json::to_string(&loaded.config).unwrap(),
    ];
    for text in &texts {
        assert!(!text.contains("hunter2"), "{text}");
    }
    assert!(texts[3].contains("postgres://u:********@h/db"), "{}", texts[3]);
    assert!(texts[3].contains("\"user\""), "{}", texts[3]);

    for wrong in [
        "[postgres]\nurl = [\"hunter2\"]",
        "[postgres]\nurl = \"hunter2",
        "[kafka.properties]\n\"sasl.password\" = [\"hunter2\"]",
        "[kafka.properties]\n\"sasl.password\" = hunter2",
    ] {
        let error = load(&toml(wrong).sources).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
    let yaml = yaml("kafka:\n  properties:\n    sasl.password: 'hunter2\n");
    let error = load(&yaml.sources).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
}

#[test]
fn the_listing_shows_each_value_with_its_origin() {
    let case = toml("name = \"taxi\"\n[tables.\"public.rides\"]\ntopic = \"rides\"\n")
        .variable("KAFKA_BROKERS", "k:9092");
    let entries = listing::entries(&load(&case.sources).unwrap());
    let text = listing::text(&entries);
    let line = |key: &str| {
        let line = text.lines().find(|line| line.starts_with(&format!("{key} "))).unwrap();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("name"), "name \"taxi\" rowcast.toml:1");
    assert_eq!(line("kafka.brokers"), "kafka.brokers \"k:9092\" KAFKA_BROKERS");
    assert_eq!(line("postgres.slot"), "postgres.slot - default");
    assert_eq!(
        line("tables.\"public.rides\".topic"),
        "tables.\"public.rides\".topic \"rides\" rowcast.toml:3"
    );
    let json: serde_json::Value = serde_json::from_str(&listing::json(&entries)).unwrap();
    assert_eq!(json["postgres.status_interval"]["value"], "10s");
}

#[test]
fn the_toml_listing_loads_to_the_same_configuration() {
    let case = toml(
        "name = \"a\\\"b\"\n[kafka.properties]\n\"linger.ms\" = 5\n[tables.\"public.rides\"]\n\
         key = [\"id\"]\n",
    );
    let loaded = load(&case.sources).unwrap();
    let again = toml(&listing::toml(&listing::entries(&loaded))).load();
    assert_eq!(again, loaded.config);
}

#[test]
fn no_depth_of_nesting_exhausts_the_stack() {
    for text in ["[", "{a: ", "- ", "a = [", "a = {b = "].map(|part| part.repeat(100_000)) {
        drop(super::load::walk_text(&text));
    }
    drop(super::load::walk_text(&format!("a = {}", "[".repeat(100_000))));
    drop(super::load::walk_text(&format!("a{} = 1", ".a".repeat(10_000))));
}

proptest! {
    #[test]
    fn no_text_makes_loading_panic(text in "\\PC*|([a-z.\\[\\]{}\"'=:,\\n &*!|>-]|postgres|tables){0,60}") {
        drop(super::load::walk_text(&text));
    }

    #[test]
    fn no_value_makes_loading_panic(key in 0..keys::KEYS.len(), value in "\\PC*") {
        drop(load(&Case::new().flag(&keys::KEYS[key].dotted(), &value).sources));
        drop(load(&Case::new().variable(&keys::KEYS[key].variable(), &value).sources));
    }
}
