//! Finds the links of a Markdown page that lead to a file.

use std::path::{Path, PathBuf};

/// The files that a page links to, relative to the page.
fn linked(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| {
        let target = rest.split([')', '#']).next()?;
        let is_elsewhere = target.is_empty() || target.contains("://") || target.contains(' ');
        (!is_elsewhere).then_some(target)
    })
}

/// The links of a page at `path` that lead nowhere.
pub(crate) fn broken(path: &Path, text: &str) -> Vec<PathBuf> {
    let folder = path.parent().unwrap_or(Path::new(""));
    linked(text).map(|target| folder.join(target)).filter(|file| !file.exists()).collect()
}
