//! Configuration files, TOML and YAML: taken, or refused with the line at fault.
//!
//! Goes through the file system, as users do; the folder of temporary files is best in memory.

#![no_main]

use std::cell::OnceCell;
use std::fs;

use libfuzzer_sys::fuzz_target;
use rowcast::config::{Origin, Sources, listing, load};

thread_local! {
    static FOLDER: OnceCell<tempfile::TempDir> = const { OnceCell::new() };
}

fuzz_target!(|bytes: &[u8]| {
    FOLDER.with(|folder| {
        let folder = folder.get_or_init(|| tempfile::tempdir().expect("a folder"));
        for name in ["rowcast.toml", "rowcast.yaml"] {
            let file = folder.path().join(name);
            fs::write(&file, bytes).expect("write the file");
            let lines = bytes.iter().filter(|byte| **byte == b'\n').count() + 1;
            match load(&Sources { file: Some(file), ..Sources::default() }) {
                Ok(loaded) => {
                    let entries = listing::entries(&loaded);
                    let _ = (listing::text(&entries), listing::json(&entries));
                    let again = folder.path().join("again.toml");
                    fs::write(&again, listing::toml(&entries)).expect("write the file");
                    let _ = loaded.config.resolve("taxi");
                }
                Err(error) => {
                    assert!(!error.problems.is_empty());
                    for problem in &error.problems {
                        if let Origin::File { line, .. } = &problem.origin {
                            // YAML ends lines with a carriage return too.
                            let returns = bytes.iter().filter(|byte| **byte == b'\r').count();
                            assert!(*line <= lines + returns + 1, "line {line} of {lines}");
                        }
                    }
                    assert!(!error.to_string().is_empty());
                }
            }
        }
    });
});
