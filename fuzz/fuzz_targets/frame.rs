//! Bytes of the replication stream: frames with a message each, or an error at the first that is
//! none.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rowcast::pgoutput::decode;
use rowcast::postgres::{Frame, Frames};

fuzz_target!(|bytes: &[u8]| {
    let mut read = 0;
    for frame in Frames::new(bytes) {
        read += 1;
        match frame {
            Ok(Frame::XLogData { data, .. }) => {
                let _ = decode(data);
            }
            Ok(Frame::Keepalive { .. }) | Err(_) => {}
        }
    }
    assert!(read <= bytes.len(), "frames without end");
});
