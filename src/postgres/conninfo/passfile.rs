//! Passwords kept in a file, as `psql` and `pg_dump` read them.
//!
//! A line is `host:port:database:user:password`; `*` matches anything and a backslash escapes.
//! A file that others may read is left alone, as libpq does, because a password in it is none.
//!
//! Format: <https://www.postgresql.org/docs/current/libpq-pgpass.html>

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::ConnInfoError;
use crate::config::Secret;

/// The entries of one password file.
pub(super) struct PassFile(Vec<[String; 5]>);

impl PassFile {
    /// Reads `path`. A file that is absent or can't be read holds no entries, unless it was asked for
    /// by name.
    pub(super) fn read(path: &Path, asked_for: bool) -> Result<Self, ConnInfoError> {
        let failed = |source| ConnInfoError::PassFile { path: PathBuf::from(path), source };
        let metadata = match std::fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound && !asked_for => {
                return Ok(Self(Vec::new()));
            }
            Err(error) if asked_for => return Err(failed(error)),
            Err(error) => return Ok(Self::unreadable(path, &error)),
        };
        if !metadata.is_file() {
            return Ok(Self(Vec::new()));
        }
        if metadata.permissions().mode() & 0o077 != 0 {
            tracing::warn!(
                path = %path.display(),
                fix = "chmod 0600 the file",
                "the password file is ignored, as others may read it"
            );
            return Ok(Self(Vec::new()));
        }
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Self::parse(&text)),
            Err(error) if asked_for => Err(failed(error)),
            Err(error) => Ok(Self::unreadable(path, &error)),
        }
    }

    /// One that nobody named is no reason not to connect: libpq goes on without it too.
    fn unreadable(path: &Path, error: &std::io::Error) -> Self {
        tracing::warn!(path = %path.display(), error = %error, "the password file can't be read");
        Self(Vec::new())
    }

    fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Self(lines.filter_map(fields).collect())
    }

    /// The password of the first line that matches.
    pub(super) fn password(&self, wanted: [&str; 4]) -> Option<Secret> {
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

    #[test]
    fn a_file_that_cant_be_read_is_an_error_only_where_it_was_named() {
        let folder = tempfile::tempdir().expect("a folder");
        // Root reads any file; below a file there is nothing for anybody. Nor is this text.
        let file = folder.path().join("file");
        std::fs::write(&file, [0xff]).expect("write");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("chmod");
        for path in [file.join("below"), file] {
            assert!(PassFile::read(&path, true).is_err(), "{path:?}");
            let unnamed = PassFile::read(&path, false).expect("libpq goes on without it");
            assert!(unnamed.password(["", "", "", ""]).is_none());
        }
    }

    #[test]
    fn a_file_that_others_may_read_is_left_alone() {
        let file = tempfile::NamedTempFile::new().expect("temp file");
        std::fs::write(file.path(), "*:*:*:*:secret").expect("write");
        let read = |mode| {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(file.path(), permissions).expect("chmod");
            PassFile::read(file.path(), true).expect("readable").password(["", "", "", ""])
        };
        assert!(read(0o644).is_none());
        assert!(read(0o600).is_some());
    }
}
