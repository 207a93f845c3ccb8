//! The PostgreSQL versions that tests run on.
//!
//! Which versions: the folders in `PG_BIN_DIRS` (separated by colons); without it the newest that
//! `scripts/fetch-postgres` gives and the newest in `/usr/lib/postgresql`. A test whose promise is
//! about versions asks for all of them (`for_every_postgres`): those that can be fetched, too.
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::{fmt, fs};

use super::run_script;

/// The programs of one PostgreSQL version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    bin: PathBuf,
    /// Major version: 15, 18, ...
    pub major: u32,
}

impl fmt::Display for Binaries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgreSQL {} ({})", self.major, self.bin.display())
    }
}

impl Binaries {
    fn at(bin: &Path) -> Self {
        let program = bin.join("postgres");
        let output = Command::new(&program).arg("--version").output();
        let output = output.unwrap_or_else(|error| panic!("run {}: {error}", program.display()));
        let version = String::from_utf8_lossy(&output.stdout);
        let major = version
            .split_whitespace()
            .find_map(|word| word.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok())
            .unwrap_or_else(|| panic!("{} tells no version: {version:?}", program.display()));
        Self { bin: bin.to_owned(), major }
    }

    /// The versions that tests run on, newest first.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn found() -> &'static [Self] {
        static FOUND: OnceLock<Vec<Binaries>> = OnceLock::new();
        FOUND.get_or_init(|| Self::look_for(&[]))
    }

    /// All versions that can be had, newest first: those in `PG_BIN_DIRS`, else all that
    /// `scripts/fetch-postgres` knows; where they can't be fetched, [`Binaries::found`].
    pub fn every() -> &'static [Self] {
        static EVERY: OnceLock<Vec<Binaries>> = OnceLock::new();
        EVERY.get_or_init(|| Self::look_for(&["--all"]))
    }

    fn look_for(args: &[&str]) -> Vec<Self> {
        let (dirs, fetched) = match std::env::var("PG_BIN_DIRS") {
            Ok(list) => (list.split(':').map(PathBuf::from).collect(), Ok(())),
            Err(_) => match run_script("fetch-postgres", args) {
                Ok(dirs) => (dirs.into_iter().chain(newest_of_machine()).collect(), Ok(())),
                Err(reason) if args.is_empty() => {
                    (newest_of_machine().into_iter().collect(), Err(reason))
                }
                Err(_) => return Self::found().to_vec(),
            },
        };
        let dirs: Vec<PathBuf> = dirs;
        let mut found: Vec<Self> = dirs.iter().map(|dir| Self::at(dir)).collect();
        found.sort_by_key(|binaries| std::cmp::Reverse(binaries.major));
        found.dedup_by_key(|binaries| binaries.major);
        assert!(!found.is_empty(), "no PostgreSQL server to test on: {fetched:?}");
        found
    }

    /// PostgreSQL 19, which `scripts/fetch-postgres-19` has where Debian's mirror can be reached: for what it
    /// does otherwise. All tests run on it with `PG_BIN_DIRS=$(scripts/fetch-postgres-19)`.
    ///
    /// # Errors
    ///
    /// Why it can't be had.
    pub fn nineteen() -> Result<&'static Self, String> {
        static NINETEEN: OnceLock<Result<Binaries, String>> = OnceLock::new();
        let found = NINETEEN.get_or_init(|| {
            let dirs = run_script("fetch-postgres-19", &[])?;
            dirs.first().map(|dir| Self::at(dir)).ok_or_else(|| "no PostgreSQL 19".to_owned())
        });
        found.as_ref().map_err(Clone::clone)
    }

    /// An old minor release, for a fault that later ones do not have.
    ///
    /// # Errors
    ///
    /// Why it can't be had.
    pub fn old_minor(version: &str) -> Result<Self, String> {
        let dirs = run_script("fetch-postgres", &[version])?;
        dirs.first().map(|dir| Self::at(dir)).ok_or_else(|| format!("no PostgreSQL {version}"))
    }

    /// The newest version that was found.
    pub fn newest() -> &'static Self {
        &Self::found()[0]
    }

    /// One of the programs: `initdb`, `postgres`.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }
}

fn newest_of_machine() -> Option<PathBuf> {
    let version = |dir: &PathBuf| dir.file_name()?.to_str()?.parse::<u32>().ok();
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let dirs = versions.filter_map(|entry| Some(entry.ok()?.path()));
    let newest = dirs.filter(|dir| dir.join("bin/postgres").is_file()).max_by_key(version)?;
    Some(newest.join("bin"))
}
