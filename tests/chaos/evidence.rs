//! What a run leaves behind when it fails: all logs, and all that Kafka keeps.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// The folder for a run, made.
pub(crate) fn folder(run: &str) -> PathBuf {
    let base = std::env::var_os("CHAOS_EVIDENCE")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let folder = base.join(format!("chaos-{run}"));
    if let Err(error) = fs::create_dir_all(&folder) {
        eprintln!("make {}: {error}", folder.display());
    }
    folder
}

/// Writes a file. That it could not is said: the failure that is under way says more.
pub(crate) fn keep(folder: &Path, name: &str, content: &str) {
    if let Err(error) = fs::write(folder.join(name), content) {
        eprintln!("keep {name}: {error}");
    }
}

/// Copies a folder, which a server may be writing to.
pub(crate) fn copy(from: &Path, to: &Path) {
    if let Err(error) = copy_all(from, to) {
        eprintln!("keep {}: {error}", from.display());
    }
}

fn copy_all(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_all(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
