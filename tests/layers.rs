//! Imports go down the layers: a module may use only what stands below it, or its own folder.
//!
//! The order keeps the picture true that the crate doc draws: parts that know bytes know no
//! sockets, parts that know Postgres know no Kafka, and only the wiring on top knows them all. Read
//! from the text of `src/`: every `crate::` path outside comments and inline test modules. Within a
//! folder, files that import each other in a circle are refused too.
//!
//! Not here: paths that reach another layer without naming `crate::` (a re-export, a macro).

#[path = "layers/imports.rs"]
mod imports;
#[path = "layers/links.rs"]
mod links;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use imports::{Import, imports};

/// From the bottom up. Modules of one row do not know each other.
const ORDER: &[&[&str]] = &[
    // Values that everyone may name.
    &["lsn", "clock", "few", "failpoint", "allocation"],
    &["backoff", "metrics", "config"],
    // Pure: bytes and values in, bytes and values out.
    &["pgoutput"],
    &["types"],
    &["change"],
    &["encode", "route"],
    &["checkpoint"],
    // Sockets, files, clocks.
    &["postgres", "kafka"],
    &["snapshot"],
    &["state", "check"],
    &["admin", "tools::generate", "tools::tail"],
    &["error", "telemetry"],
    // The way of a change to Kafka, and what brings changes.
    &["pipeline"],
    &["snapshot::initial", "snapshot::incremental"],
    &["worker"],
    // Wiring.
    &["bridge"],
    &["tools"],
    &["cli"],
];

/// The longest entry of [`ORDER`] that `path` lies in, and its rank.
fn rank(path: &str) -> Option<(usize, &'static str)> {
    let holds = |entry: &str| {
        path.strip_prefix(entry).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    let ranked =
        ORDER.iter().enumerate().flat_map(|(rank, row)| row.iter().map(move |e| (rank, *e)));
    ranked.filter(|(_, entry)| holds(entry)).max_by_key(|(_, entry)| entry.len())
}

/// What is wrong with one file's imports, a line each.
fn violations(file: &Path, text: &str) -> Vec<String> {
    let module = module_of(file);
    if module.is_empty() || module == "main" {
        return Vec::new(); // The crate's root and the binary may name anything.
    }
    let at = |line: usize| format!("{}:{line}", file.display());
    let Some((from, from_entry)) = rank(&module) else {
        return vec![format!("{}: `{module}` has no layer: add it to ORDER", at(1))];
    };
    let folder = module.split("::").next();
    let mut found = Vec::new();
    for Import { path, line } in imports(text, &module) {
        if path.split("::").next() == folder {
            continue;
        }
        match rank(&path) {
            Some((to, _)) if to < from => {}
            Some((_, entry)) => found.push(format!(
                "{}: `{from_entry}` must not use `{entry}`, which does not stand below it",
                at(line)
            )),
            None => found.push(format!("{}: `crate::{path}` has no layer", at(line))),
        }
    }
    found
}

/// `src/change/relation.rs` is `change::relation`, `src/change/mod.rs` is `change`.
fn module_of(file: &Path) -> String {
    let inside = file.strip_prefix("src").unwrap_or(file).with_extension("");
    let parts = inside.iter().map(|part| part.to_string_lossy().into_owned());
    let parts: Vec<String> = parts.filter(|part| part != "mod" && part != "lib").collect();
    parts.join("::")
}

/// Circles among the files of one folder of the crate below `root`; a folder's `mod.rs` may name its
/// files and they it.
fn circles(root: &str, files: &[(PathBuf, String)]) -> Vec<String> {
    let name = |module: &str| format!("crate::{module}");
    let module = |file: &Path| module_of(file.strip_prefix(root).unwrap_or(file));
    let modules: BTreeSet<String> = files.iter().map(|(file, _)| name(&module(file))).collect();
    let mut uses: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (file, text) in files {
        let from = modules.get(&name(&module(file))).expect("it is one of them");
        let Some((folder, _)) = from.rsplit_once("::") else { continue };
        for Import { path, .. } in imports(text, &module(file)) {
            let path = name(&path);
            let sibling = modules
                .iter()
                .filter(|other| other.rsplit_once("::").is_some_and(|(dir, _)| dir == folder))
                .find(|other| path == **other || path.starts_with(&format!("{other}::")));
            if let Some(sibling) = sibling.filter(|sibling| *sibling != from) {
                uses.entry(from).or_default().insert(sibling);
            }
        }
    }
    let reaches = |start: &str| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![start]);
        while let Some(at) = open.pop() {
            open.extend(uses.get(at).into_iter().flatten().filter(|next| seen.insert(**next)));
        }
        seen.contains(start)
    };
    let in_circle = uses.keys().filter(|module| reaches(module));
    in_circle.map(|module| format!("`{module}` is part of a circle of imports")).collect()
}

fn sources(dir: &Path, found: &mut Vec<(PathBuf, String)>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for entry in fs::read_dir(dir).expect("read a source folder") {
        let path = entry.expect("read an entry").path();
        // Tests may look wherever they want.
        let tests = path.file_stem().is_some_and(|stem| stem == "tests");
        if path.is_dir() && !tests {
            sources(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "rs") && !tests {
            let text = fs::read_to_string(&path).expect("read a source file");
            found.push((path.strip_prefix(root).expect("below the root").to_owned(), text));
        }
    }
}

#[test]
fn imports_go_down_the_layers() {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    assert!(files.len() > 10, "the sources were found");
    let mut wrong: Vec<String> =
        files.iter().flat_map(|(file, text)| violations(file, text)).collect();
    wrong.extend(circles("src", &files));
    assert!(wrong.is_empty(), "imports that break the layers:\n{}", wrong.join("\n"));
}

#[test]
fn neither_tests_nor_benches_import_each_other_in_a_circle() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in ["benches/peers", "tests/integration", "tests/chaos", "tests/snapshots"] {
        let mut files = Vec::new();
        sources(&root.join(folder), &mut files);
        assert!(files.len() > 3, "the files of {folder} were found");
        assert_eq!(circles(folder, &files), [""; 0], "{folder}");
    }
}

#[test]
fn no_file_reaches_past_the_folder_above_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src", "tests", "benches"] {
        sources(&root.join(folder), &mut files);
    }
    let reaches = ["super::super::", "pub(in "];
    let mut wrong = files.iter().filter(|(file, text)| {
        !file.to_string_lossy().starts_with("tests/layers")
            && reaches.iter().any(|reach| text.contains(reach))
    });
    assert_eq!(wrong.next().map(|(file, _)| file), None, "a sign of a wrong folder");
}

#[test]
fn an_import_from_above_or_beside_is_refused_with_its_line() {
    let text = "//! Doc.\n\nuse crate::{lsn::Lsn, kafka::{self, Producer}};\n";
    let wrong = violations(Path::new("src/postgres/slot.rs"), text);
    let beside = "src/postgres/slot.rs:3: `postgres` must not use `kafka`, which does not stand \
                  below it";
    assert_eq!(wrong, [beside, beside]);

    let text = "fn f() -> crate::bridge::Bridge {}\n";
    assert_eq!(violations(Path::new("src/encode/json.rs"), text).len(), 1);
    let text = "use crate::kafka::Topics;";
    assert_eq!(violations(Path::new("src/checkpoint/tracker.rs"), text).len(), 1);
    assert_eq!(violations(Path::new("src/new.rs"), "")[0].split(": ").count(), 3);
}

#[test]
fn what_stands_below_or_in_the_own_folder_or_in_tests_is_free() {
    let text = "\
//! See [`crate::bridge`].
use crate::config::Config;
use crate::postgres::wire::Frame;
use super::super::lsn::Lsn; // not crate::bridge
#[cfg(test)]
mod tests {
    use crate::bridge::Bridge;
}
";
    assert_eq!(violations(Path::new("src/postgres/slot.rs"), text), [""; 0]);
    assert_eq!(violations(Path::new("src/snapshot/plan.rs"), "use crate::kafka::A;"), [""; 0]);
    assert_eq!(violations(Path::new("src/main.rs"), "use crate::cli;"), [""; 0]);
}

#[test]
fn files_that_import_each_other_in_a_circle_are_found() {
    let file = |path: &str, text: &str| (PathBuf::from(path), text.to_owned());
    let mut files = vec![
        file("src/kafka/mod.rs", "use self::a::A;"),
        file("src/kafka/a.rs", "use super::b::B;\nuse super::Error;"),
        file("src/kafka/b.rs", "use super::c::{self, C};"),
        file("src/kafka/c.rs", "use std::fmt;"),
    ];
    assert_eq!(circles("src", &files), [""; 0]);
    files[3].1 = "use crate::kafka::a::A;".to_owned();
    assert_eq!(circles("src", &files).len(), 3);
}

/// The files that wait for a future by blocking their thread, in how many places, and why that thread is
/// no runtime's: one that waits inside of a runtime panics, or waits for itself.
const BLOCKING: &[(&str, usize, &str)] = &[
    (
        "src/bridge/lookup.rs",
        1,
        "asked by the worker and by readers of a snapshot, on their threads",
    ),
    ("src/bridge/renames/stream.rs", 1, "asked by the worker, on its thread"),
    ("src/cli/mod.rs", 1, "the main thread, on which nothing else runs"),
    ("src/postgres/chunks.rs", 2, "the worker, on its thread, waits for the stream"),
    ("src/postgres/stream.rs", 1, "the thread of the reader of the stream"),
    (
        "src/snapshot/initial/connection.rs",
        1,
        "a reader's own runtime, which runs only while it waits",
    ),
];

/// Whatever waits so: tokio's and that of other crates.
const WAITS: [&str; 7] = [
    "block_on(",
    "block_on::<",
    "block_in_place(",
    ".blocking_recv()",
    ".blocking_send(",
    ".blocking_lock(",
    "executor::",
];

/// How many places of a file wait so, outside of its tests.
fn waits(text: &str) -> usize {
    let text = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.flat_map(|line| WAITS.map(|waits| line.matches(waits).count())).sum()
}

#[test]
fn a_thread_waits_for_a_future_only_where_it_is_said_why_it_may() {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    let is_test = |file: &Path| {
        file.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with("tests"))
            || file.iter().any(|part| part == "tests" || part == "testing.rs")
    };
    let waiting: BTreeSet<(String, usize)> = files
        .iter()
        .filter(|(file, _)| !is_test(file))
        .map(|(file, text)| (file.display().to_string(), waits(text)))
        .filter(|(_, count)| *count > 0)
        .collect();
    let allowed = BLOCKING.iter().map(|(file, count, _)| ((*file).to_owned(), *count));
    assert_eq!(
        waiting,
        allowed.collect(),
        "each that waits is listed with its thread, and no other"
    );
    for another in [
        "runtime.block_on(async {})",
        "    let got = Handle::current().block_on(ask());",
        "futures::executor::block_on(ask())",
        "tokio::task::block_in_place(|| ask())",
        "receiver.blocking_recv()",
        "let held = lock.blocking_lock();",
    ] {
        assert!(waits(another) > 0, "{another}");
    }
}

#[test]
fn every_link_of_the_documentation_leads_to_a_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = fs::read_dir(root.join("docs"))
        .expect("read docs")
        .map(|entry| entry.expect("read an entry").path());
    let pages = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|page| root.join(page));
    let mut links = 0;
    for page in docs.chain(pages).filter(|page| page.extension().is_some_and(|ext| ext == "md")) {
        let text = fs::read_to_string(&page).expect("read a page");
        links += text.matches("](").count();
        assert_eq!(links::broken(&page, &text), [""; 0].map(PathBuf::from), "{}", page.display());
    }
    assert!(links > 50, "the pages were found");
    assert_eq!(
        links::broken(&root.join("x.md"), "[a](nowhere.md#part) [b](README.md)"),
        [root.join("nowhere.md")]
    );
}
