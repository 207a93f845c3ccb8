//! Where this machine has the programs that the demo starts.
//!
//! Nothing is downloaded here: scripts/fetch-postgres and scripts/fetch-kafka do that, into a cache
//! that is looked into.

use std::cmp::Reverse;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{env, fs};

use rustix::process::geteuid;

use super::error::DemoError;

/// Where Debian and its relatives install the servers, a folder a major version.
const PACKAGED: &str = "/usr/lib/postgresql";

/// What the environment says about places, apart from it for the tests' sake.
#[derive(Debug, Clone, Default)]
pub(super) struct Places {
    /// `PG_BIN_DIRS`: folders of server binaries, the best first.
    pub(super) pg_bin_dirs: Option<OsString>,
    /// Where fetched servers are kept.
    pub(super) cache: PathBuf,
    /// The folder of packaged servers.
    pub(super) packaged: PathBuf,
    /// `PATH`.
    pub(super) path: Option<OsString>,
    /// `JAVA_HOME`.
    pub(super) java_home: Option<OsString>,
}

impl Places {
    /// Those of this process.
    pub(super) fn of_environment() -> Self {
        let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        let home = || PathBuf::from(set("HOME").unwrap_or_default());
        let user_cache = || set("XDG_CACHE_HOME").map_or_else(|| home().join(".cache"), Into::into);
        let cache = match set("ROWCAST_CACHE") {
            Some(dir) => PathBuf::from(dir),
            // The servers of root run as another user, who cannot enter root's home.
            None if geteuid().is_root() => PathBuf::from("/var/cache/rowcast"),
            None => user_cache().join("rowcast"),
        };
        Self {
            pg_bin_dirs: set("PG_BIN_DIRS"),
            cache,
            packaged: PathBuf::from(PACKAGED),
            path: set("PATH"),
            java_home: set("JAVA_HOME"),
        }
    }

    /// The folder of `postgres` and `initdb`: the first of `PG_BIN_DIRS`, else the newest that was
    /// fetched, else the newest that is packaged, else what `PATH` finds.
    pub(super) fn postgres(&self) -> Result<PathBuf, DemoError> {
        let fetched = self.cache.join("postgres");
        let split = |list: &Option<OsString>| -> Vec<PathBuf> {
            list.as_ref().map(|list| env::split_paths(list).collect()).unwrap_or_default()
        };
        let candidates = split(&self.pg_bin_dirs)
            .into_iter()
            .chain(newest_first(&fetched).map(|dir| dir.join("bin")))
            .chain(newest_first(&self.packaged).map(|dir| dir.join("bin")))
            .chain(split(&self.path));
        let whole = |dir: &PathBuf| dir.join("postgres").is_file() && dir.join("initdb").is_file();
        candidates.into_iter().find(whole).ok_or_else(|| DemoError::NoPostgres {
            searched: format!(
                "PG_BIN_DIRS, {}, {} and PATH",
                fetched.display(),
                self.packaged.display()
            ),
        })
    }

    /// The folder of Kafka's jars, the newest.
    pub(super) fn kafka(&self) -> Result<PathBuf, DemoError> {
        let cache = self.cache.join("kafka");
        let has_jars = |dir: &PathBuf| {
            let entries = fs::read_dir(dir).into_iter().flatten().flatten();
            entries.into_iter().any(|entry| entry.path().extension().is_some_and(|e| e == "jar"))
        };
        newest_first(&cache).find(has_jars).ok_or(DemoError::NoKafka { cache })
    }

    /// Java, as `JAVA_HOME` or else `PATH` has it.
    pub(super) fn java(&self) -> PathBuf {
        let of_home = self.java_home.as_ref().map(|home| Path::new(home).join("bin/java"));
        of_home.filter(|java| java.is_file()).unwrap_or_else(|| PathBuf::from("java"))
    }

    /// Whether people can type this program's name.
    pub(super) fn on_path(&self, program: &str) -> bool {
        let dirs = self.path.as_ref().map(|path| env::split_paths(path).collect::<Vec<_>>());
        dirs.unwrap_or_default().iter().any(|dir| dir.join(program).is_file())
    }
}

/// The folders in `dir` whose name is a version, the newest first.
fn newest_first(dir: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut found: Vec<(Vec<u32>, PathBuf)> = entries
        .filter_map(|entry| Some((version(entry.file_name().to_str()?)?, entry.path())))
        .collect();
    found.sort_by_key(|(version, _)| Reverse(version.clone()));
    found.into_iter().map(|(_, path)| path)
}

/// `18.4.0-beta.17` is 18, 4, 0, 17; what does not begin with a digit is no version.
fn version(name: &str) -> Option<Vec<u32>> {
    name.starts_with(|c: char| c.is_ascii_digit()).then(|| {
        let numbers = name.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty());
        numbers.map(|part| part.parse().unwrap_or(u32::MAX)).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(dir: &Path) {
        fs::create_dir_all(dir).unwrap();
        for program in ["postgres", "initdb"] {
            fs::write(dir.join(program), "").unwrap();
        }
    }

    fn places(root: &Path) -> Places {
        Places { cache: root.join("cache"), packaged: root.join("packaged"), ..Places::default() }
    }

    #[test]
    fn pg_bin_dirs_come_before_the_cache_that_before_packages_and_those_before_the_path() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let mut places = places(root.path());
        places.path = Some(at("path").into());

        server(&at("path"));
        assert_eq!(places.postgres().unwrap(), at("path"));
        server(&at("packaged/9.6/bin"));
        server(&at("packaged/15/bin"));
        assert_eq!(places.postgres().unwrap(), at("packaged/15/bin"));
        server(&at("cache/postgres/9.4.0-beta.17/bin"));
        server(&at("cache/postgres/14.23.0-beta.17/bin"));
        assert_eq!(places.postgres().unwrap(), at("cache/postgres/14.23.0-beta.17/bin"));
        server(&at("own"));
        places.pg_bin_dirs = Some(env::join_paths([at("missing"), at("own")]).unwrap());
        assert_eq!(places.postgres().unwrap(), at("own"));
    }

    #[test]
    fn a_machine_without_postgres_is_told_what_to_install() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("cache/postgres/18.4/bin")).unwrap();
        let error = places(root.path()).postgres().unwrap_err().to_string();
        assert!(error.contains("apt-get install postgresql"), "{error}");
        assert!(error.contains("PG_BIN_DIRS"), "{error}");
    }

    #[test]
    fn a_machine_without_the_jars_of_kafka_is_told_how_to_fetch_them() {
        let root = tempfile::tempdir().unwrap();
        let places = places(root.path());
        let jars = root.path().join("cache/kafka/4.3.1-984602132");
        fs::create_dir_all(&jars).unwrap();
        let error = places.kafka().unwrap_err().to_string();
        assert!(error.contains("scripts/fetch-kafka"), "{error}");
        fs::write(jars.join("kafka.jar"), "").unwrap();
        assert_eq!(places.kafka().unwrap(), jars);
    }
}
