//! Passwords kept in a file, as `psql` and `pg_dump` read them.
//!
//! A line is `host:port:database:user:password`; `*` matches anything and a backslash escapes. As
//! in libpq, a file that others may read is ignored, because its passwords are not secret, and the
//! file is read at every connection, so that a changed password takes effect.
//!
//! Format: <https://www.postgresql.org/docs/current/libpq-pgpass.html>

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{Address, ConnInfoError, Host, SOCKET_DIRECTORIES};
use crate::config::Secret;

/// The file and the entries to look up in it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PassFileSource {
    pub(super) path: PathBuf,
    /// Whether it was configured.
    pub(super) asked_for: bool,
    pub(super) database: String,
    pub(super) user: String,
    /// Whether the first reading failed, which was logged.
    is_reported: bool,
}

impl PassFileSource {
    pub(super) const fn new(
        path: PathBuf,
        asked_for: bool,
        database: String,
        user: String,
    ) -> Self {
        Self { path, asked_for, database, user, is_reported: false }
    }

    /// Looks up the hosts' passwords for the first time.
    pub(super) fn fill(&mut self, hosts: &mut [Host]) -> Result<(), ConnInfoError> {
        match PassFile::read(&self.path) {
            Ok(file) => self.look_up(&file, hosts),
            Err(Unusable::Absent(source) | Unusable::Unreadable(source)) if self.asked_for => {
                return Err(ConnInfoError::PassFile { path: self.path.clone(), source });
            }
            Err(unusable) => {
                unusable.report(&self.path);
                self.is_reported = true;
            }
        }
        Ok(())
    }

    /// Looks them up again, for a connection. If the file has become unusable, the last passwords
    /// remain: it may just be being written.
    pub(super) fn refresh(&self, hosts: &mut [Host]) {
        match PassFile::read(&self.path) {
            Ok(file) => self.look_up(&file, hosts),
            Err(_) if self.is_reported => {}
            Err(unusable) => unusable.report(&self.path),
        }
    }

    fn look_up(&self, file: &PassFile, hosts: &mut [Host]) {
        for host in hosts {
            // In a password file, "localhost" also means the socket in the default directory.
            let name = match &host.address {
                Address::Unix(path)
                    if SOCKET_DIRECTORIES.iter().any(|of| path == Path::new(of)) =>
                {
                    "localhost".to_owned()
                }
                Address::Unix(path) => path.display().to_string(),
                Address::Name(name) | Address::Ip(_, Some(name)) => name.clone(),
                Address::Ip(ip, None) => ip.to_string(),
            };
            let port = host.port.to_string();
            host.password = file.password([&name, &port, &self.database, &self.user]);
        }
    }
}

/// Why a file has no passwords for us.
#[derive(Debug)]
enum Unusable {
    Absent(std::io::Error),
    Unreadable(std::io::Error),
    /// Others may read it.
    Open,
}

impl Unusable {
    /// A default file that is unusable does not prevent a connection: libpq ignores it too.
    fn report(&self, path: &Path) {
        let path = path.display();
        match self {
            // Most users have none.
            Self::Absent(_) => {}
            Self::Unreadable(error) => {
                tracing::warn!(%path, %error, "the password file can't be read");
            }
            Self::Open => tracing::warn!(
                %path,
                fix = "chmod 0600 the file",
                "ignoring the password file, because others may read it"
            ),
        }
    }
}

/// The entries of one password file.
struct PassFile(Vec<[String; 5]>);

impl PassFile {
    /// Reads it. What is not a file has no entries.
    fn read(path: &Path) -> Result<Self, Unusable> {
        let metadata = match std::fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(Unusable::Absent(error));
            }
            Err(error) => return Err(Unusable::Unreadable(error)),
        };
        if !metadata.is_file() {
            return Ok(Self(Vec::new()));
        }
        if metadata.permissions().mode() & 0o077 != 0 {
            return Err(Unusable::Open);
        }
        std::fs::read_to_string(path).map(|text| Self::parse(&text)).map_err(Unusable::Unreadable)
    }

    fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Self(lines.filter_map(fields).collect())
    }

    /// The password of the first line that matches.
    fn password(&self, wanted: [&str; 4]) -> Option<Secret> {
        let matches = |line: &&[String; 5]| {
            line.iter().zip(wanted).all(|(pattern, value)| pattern == "*" || pattern == value)
        };
        let [.., password] = self.0.iter().find(matches)?;
        Some(Secret::from(password.clone()))
    }
}

fn fields(line: &str) -> Option<[String; 5]> {
    let mut fields = vec![String::new()];
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            // The password is the rest of the line, but its own colons may be escaped too.
            ':' if fields.len() < 5 => fields.push(String::new()),
            '\\' => fields.last_mut()?.extend(chars.next()),
            c => fields.last_mut()?.push(c),
        }
    }
    fields.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_matching_line_gives_the_password() {
        let file =
            PassFile::parse("# note\nbad\nh:1:d:u:exact\n*:*:*:v:a\\:b\\\\c:d\n*:*:*:*:any\n");
        let password = |wanted| file.password(wanted).map(|secret| secret.expose().to_owned());
        assert_eq!(password(["h", "1", "d", "u"]).as_deref(), Some("exact"));
        assert_eq!(password(["h", "1", "d", "v"]).as_deref(), Some("a:b\\c:d"));
        assert_eq!(password(["x", "2", "y", "z"]).as_deref(), Some("any"));
        assert!(PassFile::parse("h:1:d:u:p").password(["h", "1", "d", "w"]).is_none());
    }

    fn filled(path: &Path, asked_for: bool) -> Result<(PassFileSource, Vec<Host>), ConnInfoError> {
        let (database, user) = ("d".to_owned(), "u".to_owned());
        let mut source = PassFileSource::new(path.to_owned(), asked_for, database, user);
        let address = Address::Name("h".to_owned());
        let mut hosts = vec![Host { address, port: 1, password: None }];
        source.fill(&mut hosts)?;
        Ok((source, hosts))
    }

    fn put(path: &Path, text: &[u8], mode: u32) {
        std::fs::write(path, text).expect("write");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("chmod");
    }

    fn password(hosts: &[Host]) -> Option<&str> {
        hosts[0].password.as_ref().map(Secret::expose)
    }

    #[test]
    fn a_file_that_cant_be_read_is_an_error_only_where_it_was_named() {
        let folder = tempfile::tempdir().expect("a folder");
        // Root can read any file, but a path below a file never exists. And this is not text.
        let file = folder.path().join("file");
        put(&file, &[0xff], 0o600);
        for path in [file.join("below"), folder.path().join("absent"), file] {
            assert!(filled(&path, true).is_err(), "{path:?}");
            let (_, hosts) = filled(&path, false).expect("libpq continues without it");
            assert_eq!(password(&hosts), None);
        }
    }

    #[test]
    fn a_file_that_others_may_read_is_left_alone() {
        let file = tempfile::NamedTempFile::new().expect("temp file");
        put(file.path(), b"*:*:*:*:secret", 0o644);
        assert_eq!(password(&filled(file.path(), true).expect("readable").1), None);
        put(file.path(), b"*:*:*:*:secret", 0o600);
        assert_eq!(password(&filled(file.path(), true).expect("readable").1), Some("secret"));
    }

    #[test]
    fn what_a_file_says_later_counts_and_one_that_is_being_written_takes_nothing_away() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        // A missing file may be created later.
        let (source, mut hosts) = filled(&path, false).expect("it was not configured");
        for (text, mode, expected) in [
            (&b"h:1:d:u:first"[..], 0o600, Some("first")),
            (b"h:1:d:u:second", 0o600, Some("second")),
            (b"h:1:d:u:third", 0o644, Some("second")),
            (&[0xff], 0o600, Some("second")),
            (b"other:1:d:u:third", 0o600, None),
        ] {
            put(&path, text, mode);
            source.refresh(&mut hosts);
            assert_eq!(password(&hosts), expected);
        }
    }
}
