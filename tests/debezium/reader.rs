//! A reader of a server: a connector of Debezium or a rowcast, set up for one and the same.

use crate::configurations::{ALL, Configuration};
use crate::golden;
use crate::run::Publisher;
use crate::support::bridge::Bridge;
use crate::support::postgres::{Binaries, TestDatabase};

/// A reader: its topics' prefix, which is also the name of its slot.
pub(crate) struct Reader {
    pub(crate) prefix: String,
    pub(crate) publisher: Publisher,
    pub(crate) configuration: &'static Configuration,
    reads: Reads,
}

/// What a reader begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reads {
    /// What is written from now on.
    Changes,
    /// The rows that are there.
    Rows,
}

impl Reader {
    pub(crate) fn new(
        publisher: Publisher,
        reads: Reads,
        configuration: &'static Configuration,
        major: u32,
    ) -> Self {
        let who = match publisher {
            Publisher::Debezium => "debezium",
            Publisher::Rowcast => "rowcast",
        };
        let what = match reads {
            Reads::Changes => "",
            Reads::Rows => "rows_",
        };
        let prefix = format!("{who}_{what}{}_{major}", configuration.name);
        Self { prefix, publisher, configuration, reads }
    }

    /// Debezium's properties; it leaves these tables alone.
    fn properties(
        &self,
        port: u16,
        database: &TestDatabase,
        excluded: &[String],
    ) -> Vec<(String, String)> {
        let port = port.to_string();
        let schemas = self.configuration.schemas.to_string();
        let snapshot_mode = match self.reads {
            Reads::Changes => "no_data",
            Reads::Rows => "initial",
        };
        let mut properties = vec![
            ("connector.class", "io.debezium.connector.postgresql.PostgresConnector"),
            ("tasks.max", "1"),
            ("database.hostname", "127.0.0.1"),
            ("database.port", &port),
            ("database.user", "postgres"),
            ("database.dbname", &database.name),
            ("topic.prefix", &self.prefix),
            ("plugin.name", "pgoutput"),
            ("slot.name", &self.prefix),
            ("publication.name", self.configuration.publication),
            ("publication.autocreate.mode", "disabled"),
            ("snapshot.mode", snapshot_mode),
            ("poll.interval.ms", "10"),
            ("errors.max.retries", "0"),
            ("key.converter", "org.apache.kafka.connect.json.JsonConverter"),
            ("value.converter", "org.apache.kafka.connect.json.JsonConverter"),
            ("key.converter.schemas.enable", &schemas),
            ("value.converter.schemas.enable", &schemas),
            ("topic.creation.default.replication.factor", "1"),
            ("topic.creation.default.partitions", "1"),
        ];
        properties.extend(self.configuration.connector);
        let mut excluded: Vec<String> =
            excluded.iter().map(|table| table.replace('.', "\\\\.")).collect();
        let own = properties.extract_if(.., |(key, _)| *key == "table.exclude.list");
        excluded.extend(own.map(|(_, value)| value.to_owned()));
        let excluded = excluded.join(",");
        if !excluded.is_empty() {
            properties.push(("table.exclude.list", &excluded));
        }
        properties.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    /// Starts rowcast, which leaves these tables alone.
    pub(crate) fn start_bridge(
        &self,
        database: &TestDatabase,
        bootstrap: &str,
        excluded: &[String],
    ) -> Bridge {
        let Configuration { publication, format, schemas, skipped_operations, .. } =
            self.configuration;
        let value = if *schemas { "debezium-schema" } else { "debezium" };
        let prefix = &self.prefix;
        // A slot that is there has no snapshot.
        let manage = self.reads == Reads::Rows;
        // Debezium does not read partitions that are attached.
        let snapshot_mode = if manage { "initial" } else { "never" };
        let toml = format!(
            "[postgres]
slot = \"{prefix}\"
publication = \"{publication}\"
manage = {manage}
exclude_tables = {excluded:?}
skipped_operations = {skipped_operations:?}
[snapshot]
mode = \"{snapshot_mode}\"
[format]
value = \"{value}\"
types = \"debezium\"
{format}"
        );
        Bridge::start(prefix, &database.unix_url, bootstrap, &toml)
    }
}

/// The connectors among them: name and properties. `excluded` says which tables one leaves alone.
pub(crate) fn connectors(
    readers: &[Reader],
    port: u16,
    database: &TestDatabase,
    excluded: impl Fn(&Reader) -> Vec<String>,
) -> Vec<(String, Vec<(String, String)>)> {
    let of_debezium = readers.iter().filter(|reader| reader.publisher == Publisher::Debezium);
    of_debezium
        .map(|reader| (reader.prefix.clone(), reader.properties(port, database, &excluded(reader))))
        .collect()
}

/// All that read a server of this version.
pub(crate) fn all(reads: Reads, binaries: &Binaries, with_debezium: bool) -> Vec<Reader> {
    let newest = binaries == Binaries::newest();
    let mut readers = Vec::new();
    for configuration in ALL {
        // Golden files are written without regard to what rowcast can do by now.
        let of_rowcast = !golden::is_update();
        let mut add = |publisher| {
            readers.push(Reader::new(publisher, reads, configuration, binaries.major));
        };
        if with_debezium && (newest || configuration.is_debeziums_everywhere()) {
            add(Publisher::Debezium);
        }
        if of_rowcast && (newest || configuration.is_rowcasts_everywhere()) {
            add(Publisher::Rowcast);
        }
    }
    readers
}
