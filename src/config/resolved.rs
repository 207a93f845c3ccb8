//! The resolved configuration that the bridge runs with.
//!
//! Every name is settled, every pattern is compiled, every secret's file is read. After this, only
//! a server can find something wrong.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::pattern::TableFilter;
use super::resolve_error::{ResolveError, Warning};
use super::rule::MAX_IDENTIFIER_BYTES;
use super::{
    Admin, ColumnLists, Config, Delivery, Errors, Format, Kafka, Log, Memory, OnGap, Operation,
    Secret, SecretError, SecretSource, SignalTable, Size, Snapshot, TableSettings, Topics,
    Watchdog,
};

/// What the bridge runs with.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The pipeline's name.
    pub name: String,
    /// How the memory is divided.
    pub memory: Memory,
    /// The value of `{prefix}`, and Debezium's `source.name`.
    pub prefix: String,
    /// The delivery guarantee.
    pub delivery: Delivery,
    /// The replication slot.
    pub slot: String,
    /// The publication.
    pub publication: String,
    /// The publication for tables of which only inserts can be published.
    pub inserts_publication: String,
    /// The connection string; libpq's defaults apply without one.
    pub url: Option<Secret>,
    /// Where the password is read from at every connection; takes precedence over one in the URL.
    pub password: Option<SecretSource>,
    /// The tables to capture.
    pub captured: TableFilter,
    /// Time between two checks for new tables.
    pub discover_interval: Duration,
    /// The kinds of changes that are not published.
    pub skipped: Vec<Operation>,
    /// Whether rowcast creates the slot and the publication and keeps them up to date.
    pub manage: bool,
    /// Whether changes of partitions are published as their root's.
    pub via_root: bool,
    /// Where left-out columns are removed.
    pub column_lists: ColumnLists,
    /// Whether the slot is to be a failover slot.
    pub failover: bool,
    /// The most WAL that the slot may hold back.
    pub slot_wal_limit: Option<Size>,
    /// What to do when changes are missing.
    pub on_gap: OnGap,
    /// The table whose rows are signals.
    pub signal_table: Option<SignalTable>,
    /// The token that makes a logical message a signal; without it no message is one.
    pub signal_token: Option<Secret>,
    /// Whether a signal may have a condition.
    pub signal_conditions: bool,
    /// The role that reads tables when a request asks for some of their rows.
    pub snapshot_role: Option<String>,
    /// Longest time between two status updates.
    pub status_interval: Duration,
    /// Longest wait for a connection to one host.
    pub connect_timeout: Duration,
    /// Bootstrap brokers.
    pub brokers: String,
    /// The rest of the Kafka side.
    pub kafka: Kafka,
    /// Where properties are read from for every session.
    pub property_sources: BTreeMap<String, SecretSource>,
    /// How topics are named and created.
    pub topics: Topics,
    /// The form of records.
    pub format: Format,
    /// What happens to a row that can't be published.
    pub errors: Errors,
    /// What hashes of values begin with.
    pub hash_salt: Option<Secret>,
    /// Settings of single tables.
    pub tables: TableSettings,
    /// How existing rows are read.
    pub snapshot: Snapshot,
    /// When a pipeline without progress counts as stalled.
    pub watchdog: Watchdog,
    /// The HTTP endpoint.
    pub admin: Admin,
    /// The token that changes over HTTP require.
    pub admin_token: Option<Secret>,
    /// What is logged.
    pub log: Log,
    /// Suspicious settings, to be logged as warnings.
    pub warnings: Vec<Warning>,
}

impl Config {
    /// Resolves the configuration, given the name of the connection string's database.
    ///
    /// # Errors
    /// When no broker is configured, a secret's file can't be read, or rows would go to the topic
    /// of the checkpoints.
    pub fn resolve(&self, database: &str) -> Result<Resolved, ResolveError> {
        let brokers = self.kafka.brokers.clone().ok_or(ResolveError::NoBrokers)?;
        let name = self.name.clone().unwrap_or_else(|| database.to_owned());
        let mut warnings = Vec::new();
        let password = self.password(&mut warnings)?;
        let property_sources = self.property_sources(&mut warnings)?;
        let mut secret = |key, file: &Option<PathBuf>| {
            let file = file.as_deref();
            file.map(|file| read_secret(key, file, false, &mut warnings)).transpose()
        };
        let salt = secret("format.hash_salt_file", &self.format.hash_salt_file)?
            .or_else(|| self.format.hash_salt.clone());
        let admin_token = secret("admin.token_file", &self.admin.token_file)?;
        let signal_token = secret("postgres.signal_token_file", &self.postgres.signal_token_file)?;
        let tables = TableSettings::parse(&self.tables)?;
        self.refuse_contradictions(&tables, salt.is_some())?;
        let captured = TableFilter::parse(&self.postgres.tables, &self.postgres.exclude_tables)?;
        let (signal_table, captured) =
            SignalTable::settle(self.postgres.signal_table.as_deref(), captured);
        let settled = |set: &Option<String>| set.clone().unwrap_or_else(|| identifier(&name));
        let publication = settled(&self.postgres.publication);
        Ok(Resolved {
            prefix: self.topics.prefix.clone().unwrap_or_else(|| name.clone()),
            slot: settled(&self.postgres.slot),
            inserts_publication: inserts_publication(&publication),
            publication,
            name,
            delivery: self.delivery,
            memory: Memory::new(self.memory),
            url: self.postgres.url.clone(),
            password,
            captured,
            discover_interval: self.postgres.discover_interval,
            skipped: self.postgres.skipped_operations.clone(),
            manage: self.postgres.manage,
            via_root: self.postgres.publish_via_partition_root,
            column_lists: self.postgres.column_lists,
            failover: self.postgres.failover,
            slot_wal_limit: self.postgres.slot_wal_limit,
            on_gap: self.postgres.on_gap,
            signal_table,
            signal_token,
            signal_conditions: self.postgres.signal_conditions,
            snapshot_role: self.postgres.snapshot_role.clone(),
            status_interval: self.postgres.status_interval,
            connect_timeout: self.postgres.connect_timeout,
            brokers,
            kafka: self.kafka.clone(),
            property_sources,
            topics: self.topics.clone(),
            format: self.format.clone(),
            errors: self.errors.clone(),
            hash_salt: salt,
            tables,
            snapshot: self.snapshot.clone(),
            watchdog: self.watchdog.clone(),
            admin: self.admin.clone(),
            admin_token,
            log: self.log.clone(),
            warnings,
        })
    }
}

impl Config {
    /// Refuses settings of which each alone is right.
    fn refuse_contradictions(
        &self,
        tables: &TableSettings,
        has_salt: bool,
    ) -> Result<(), ResolveError> {
        if let Some(key) = tables.hash_key().filter(|_| !has_salt) {
            return Err(ResolveError::NoSalt { key });
        }
        let checkpoints = &self.topics.checkpoints;
        let is_dead_letter = self.errors.dead_letter_topic.as_ref() == Some(checkpoints);
        let dead_letter = is_dead_letter.then(|| "errors.dead_letter_topic".to_owned());
        if let Some(key) = tables.topic_key(checkpoints).or(dead_letter) {
            return Err(ResolveError::CheckpointTopic { key, topic: checkpoints.clone() });
        }
        let operations = &self.postgres.skipped_operations;
        if self.postgres.signal_table.is_some() && operations.contains(&Operation::Insert) {
            return Err(ResolveError::NoSignals);
        }
        Ok(())
    }

    fn password(&self, warnings: &mut Vec<Warning>) -> Result<Option<SecretSource>, ResolveError> {
        const FILE: &str = "postgres.password_file";
        match (&self.postgres.password_file, &self.postgres.password_command) {
            (Some(_), Some(_)) => Err(ResolveError::TwoPasswords),
            (Some(file), None) => {
                // Also read now: a wrong file name is an error of the configuration.
                read_secret(FILE, file, false, warnings)?;
                Ok(Some(SecretSource::file(FILE, file, false)))
            }
            (None, Some(command)) => {
                Ok(Some(SecretSource::command("postgres.password_command", command, false)))
            }
            (None, None) => Ok(None),
        }
    }

    fn property_sources(
        &self,
        warnings: &mut Vec<Warning>,
    ) -> Result<BTreeMap<String, SecretSource>, ResolveError> {
        // A PEM file is used whole; other secrets are the first line.
        let is_whole = |property: &str| property.ends_with(".pem");
        let mut sources = BTreeMap::new();
        for (property, file) in &self.kafka.property_files {
            let key = format!("kafka.property_files.\"{property}\"");
            read_secret(&key, file, is_whole(property), warnings)?;
            let source = SecretSource::file(&key, file, is_whole(property));
            sources.insert(property.clone(), source);
        }
        for (property, command) in &self.kafka.property_commands {
            let key = format!("kafka.property_commands.\"{property}\"");
            let source = SecretSource::command(&key, command, is_whole(property));
            sources.insert(property.clone(), source);
        }
        for property in KEY_FILES {
            if let Some(file) = self.kafka.properties.get(*property) {
                let key = format!("kafka.properties.\"{property}\"");
                warnings.extend(world_readable(&key, Path::new(file.expose())));
            }
        }
        Ok(sources)
    }
}

/// Properties that name a file with a private key.
const KEY_FILES: &[&str] = &["ssl.key.location", "ssl.keystore.location"];

impl Resolved {
    /// Whether the rows of this table are signals and nothing else.
    #[must_use]
    pub fn hides(&self, schema: &str, name: &str) -> bool {
        self.signal_table.as_ref().is_some_and(|signals| signals.hides(schema, name))
    }

    /// Reads all properties again from their files and commands.
    ///
    /// # Errors
    /// When one can't be read.
    pub async fn with_fresh_properties(&self) -> Result<Self, SecretError> {
        let mut fresh = self.clone();
        for (property, source) in &self.property_sources {
            fresh.kafka.properties.insert(property.clone(), source.read().await?);
        }
        Ok(fresh)
    }
}

/// The default name of the slot and the publication: `rowcast_` and the pipeline's name, reduced to
/// the characters that a slot's name may have.
fn identifier(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    let full: String = format!("rowcast_{name}").chars().map(plain).collect();
    if full.len() <= MAX_IDENTIFIER_BYTES {
        return full;
    }
    // Two long names that differ only at their ends must not share a slot.
    let digest = Sha256::digest(name.as_bytes());
    let suffix: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    format!("{}_{suffix}", &full[..MAX_IDENTIFIER_BYTES - 9])
}

/// The name of the publication for inserts, derived from that of the publication. Postgres would
/// truncate a longer one.
fn inserts_publication(publication: &str) -> String {
    const END: &str = "_inserts";
    if publication.len() + END.len() <= MAX_IDENTIFIER_BYTES {
        return format!("{publication}{END}");
    }
    let digest = Sha256::digest(publication.as_bytes());
    let digest: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let mut cut = MAX_IDENTIFIER_BYTES - END.len() - 1 - digest.len();
    while !publication.is_char_boundary(cut) {
        cut -= 1;
    }
    format!("{}_{digest}{END}", &publication[..cut])
}

/// The secret in a file: its first line, or all of it.
fn read_secret(
    key: &str,
    file: &Path,
    whole: bool,
    warnings: &mut Vec<Warning>,
) -> Result<Secret, ResolveError> {
    let failed =
        |source| ResolveError::SecretFile { key: key.to_owned(), file: file.to_owned(), source };
    let text = std::fs::read_to_string(file).map_err(failed)?;
    let secret = if whole { text.as_str() } else { text.lines().next().unwrap_or_default() };
    if secret.is_empty() {
        return Err(ResolveError::EmptySecretFile { key: key.to_owned(), file: file.to_owned() });
    }
    warnings.extend(world_readable(key, file));
    Ok(Secret::from(secret.to_owned()))
}

/// A warning if every user can read a file with a secret.
pub(crate) fn world_readable(key: &str, file: &Path) -> Option<Warning> {
    use std::os::unix::fs::PermissionsExt;
    let is_open = |metadata: std::fs::Metadata| metadata.permissions().mode() & 0o004 != 0;
    let is_open = std::fs::metadata(file).is_ok_and(is_open);
    is_open.then(|| Warning::WorldReadable { key: key.to_owned(), file: file.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::Table;

    fn config() -> Config {
        let mut config = Config::default();
        config.kafka.brokers = Some("localhost:9092".to_owned());
        config
    }

    #[test]
    fn names_default_to_the_database() {
        let resolved = config().resolve("Taxi-NYC").unwrap();
        assert_eq!((resolved.name.as_str(), resolved.prefix.as_str()), ("Taxi-NYC", "Taxi-NYC"));
        assert_eq!(resolved.slot, "rowcast_taxi_nyc");
        assert_eq!(resolved.publication, "rowcast_taxi_nyc");
    }

    #[test]
    fn a_long_name_gives_a_slot_of_its_own() {
        let long = "n".repeat(80);
        let first = identifier(&format!("{long}a"));
        let second = identifier(&format!("{long}b"));
        assert_eq!((first.len(), second.len()), (63, 63));
        assert_ne!(first, second);
        crate::config::rule::check(crate::config::keys::Rule::Slot, &first).unwrap();
    }

    #[test]
    fn the_publication_for_inserts_has_a_name_of_its_own_however_long_the_other_is() {
        assert_eq!(inserts_publication("rowcast_taxi"), "rowcast_taxi_inserts");
        for length in 50..=MAX_IDENTIFIER_BYTES {
            let (one, other) = ("é".repeat(length / 2), "é".repeat(length / 2 - 1) + "xx");
            let names = [inserts_publication(&one), inserts_publication(&other)];
            assert!(names.iter().all(|name| name.len() <= MAX_IDENTIFIER_BYTES), "{names:?}");
            assert!(names.iter().all(|name| name.ends_with("_inserts")), "{names:?}");
            assert_ne!(names[0], names[1]);
        }
    }

    #[test]
    fn a_bridge_without_brokers_is_refused_with_the_ways_to_name_them() {
        let error = Config::default().resolve("taxi").unwrap_err();
        assert_eq!(
            error.to_string(),
            "no Kafka broker is named; set kafka.brokers in the file, KAFKA_BROKERS in the \
             environment, or --brokers"
        );
    }

    #[test]
    fn rows_are_not_given_the_topic_of_the_checkpoints() {
        let text = |config: &Config| config.resolve("taxi").unwrap_err().to_string();
        let topic = Some("rowcast.checkpoints".to_owned());
        let mut by_table = config();
        let table = Table { topic: topic.clone(), ..Table::default() };
        by_table.tables.insert("public.*".to_owned(), table);
        assert_eq!(
            text(&by_table),
            "tables.\"public.*\".topic and topics.checkpoints are the same topic, \
             \"rowcast.checkpoints\", and checkpoints need a topic of their own; rename one of \
             the two"
        );
        let mut dead_letter = config();
        dead_letter.errors.dead_letter_topic = topic;
        assert!(text(&dead_letter).starts_with("errors.dead_letter_topic and topics.checkpoints"));
        for config in [&mut by_table, &mut dead_letter] {
            "taxi.checkpoints".clone_into(&mut config.topics.checkpoints);
            config.resolve("taxi").unwrap();
        }
    }

    #[test]
    fn secrets_come_from_files_and_open_files_are_warned_of() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("password");
        std::fs::write(&file, "hunter2\nsecond line\n").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        let mut config = config();
        config.postgres.password_file = Some(file.clone());
        config.kafka.property_files.insert("sasl.password".to_owned(), file.clone());
        config.kafka.property_files.insert("ssl.key.pem".to_owned(), file.clone());
        let location = Secret::from(file.display().to_string());
        config.kafka.properties.insert("ssl.key.location".to_owned(), location);
        let resolved = config.resolve("taxi").unwrap();
        let read = |source: &SecretSource| source.read_file().unwrap().unwrap();
        assert_eq!(read(resolved.password.as_ref().unwrap()).expose(), "hunter2");
        let property = |name: &str| read(&resolved.property_sources[name]).expose().to_owned();
        assert_eq!(property("sasl.password"), "hunter2");
        assert_eq!(property("ssl.key.pem"), "hunter2\nsecond line\n");
        assert_eq!(resolved.warnings.len(), 4);
        let shown = file.display();
        assert_eq!(
            resolved.warnings[0].to_string(),
            format!(
                "every user can read {shown}, which postgres.password_file names; run: chmod o-r \
                 {shown}"
            )
        );
        assert!(!format!("{resolved:?}").contains("hunter2"));

        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(config.resolve("taxi").unwrap().warnings.is_empty());
    }

    #[test]
    fn a_secret_file_that_is_missing_or_empty_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("password");
        let mut config = config();
        config.postgres.password_file = Some(file.clone());
        let text = |config: &Config| config.resolve("taxi").unwrap_err().to_string();
        let shown = file.display();
        assert_eq!(
            text(&config),
            format!(
                "cannot read {shown}, which postgres.password_file names: No such file or \
                 directory (os error 2)"
            )
        );
        std::fs::write(&file, "\n").unwrap();
        assert_eq!(
            text(&config),
            format!("{shown}, which postgres.password_file names, has an empty first line")
        );
    }
}
