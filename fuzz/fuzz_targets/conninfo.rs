//! Connection strings: understood or refused, and the password never told.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rowcast::postgres::ConnInfo;

fuzz_target!(|text: &str| {
    for variables in [false, true] {
        let variable = |name: &str| {
            // Every variable of libpq's, with the same text: what is taken where is of no matter.
            (variables && name.starts_with("PG")).then(|| text.to_owned())
        };
        match ConnInfo::parse(text, &variable) {
            Ok(info) => {
                assert!(!info.hosts().is_empty());
                let _ = format!("{info:?}");
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
});
