//! A server that says anything: the login, the queries after it and the stream all end, with what
//! was asked or with an error.
//!
//! The first byte chooses how far the connection is to be trusted, the second how much is read at
//! once; the rest is what the server says.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rowcast::postgres::fuzzing::{Trust, converse};

fuzz_target!(|bytes: &[u8]| {
    let [trust, piece, said @ ..] = bytes else { return };
    let trust = Trust {
        is_private: trust & 1 != 0,
        is_tls: trust & 2 != 0,
        has_password: trust & 4 != 0,
        must_bind: trust & 8 != 0,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let told = runtime.expect("a runtime").block_on(converse(said, usize::from(*piece) + 1, trust));
    if let Err(error) = told {
        let text = format!("{error} {error:?} {:?} {}", error.fix(), error.is_transient());
        assert!(!text.contains("hunter2"), "the password is told: {text}");
    }
});
