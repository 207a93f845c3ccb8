//! A standard error that can't be written: logging stops nothing, and what is missing is counted.

use std::io::{PipeReader, PipeWriter, Read as _, Write as _, pipe};
use std::process::Stdio;
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::{all_arrive, create_table, metric, readyz, stop, write};
use crate::support::bridge::Bridge;
use crate::support::kafka::Brokers;
use crate::support::postgres::TestDatabase;
use crate::support::{PATIENCE, eventually, unique};

const DROPPED: &str = "rowcast_log_lines_dropped_total";

/// A bridge is ended by SIGTERM in this time, though nobody reads what it logs.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// A pipe in which not one byte more has room.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = pipe().expect("make a pipe");
    let flags = fcntl_getfl(&writer).expect("ask for its flags");
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).expect("make it not block");
    // To the last byte: less may have room where more has not.
    for piece in [vec![b'.'; 4096], vec![b'.']] {
        while writer.write(&piece).is_ok() {}
    }
    fcntl_setfl(&writer, flags).expect("make it block");
    (reader, writer)
}

/// Starts a bridge that logs to `stderr`, and proves that it works.
async fn works(stderr: Stdio) -> Bridge {
    let database = TestDatabase::create().await;
    let client = database.client().await;
    create_table(&client).await;
    let (name, brokers) = (unique("untold"), Brokers::any().bootstrap());
    let telling = (Some(stderr), [].as_slice());
    let bridge = Bridge::start_telling(&name, &database.tcp_url, &brokers, "", telling);
    readyz(&bridge, 200, "streaming").await;
    write(&client, 1..=100).await;
    all_arrive(&brokers, &name, &client).await;
    assert_eq!(bridge.get("/livez").map(|(code, _)| code), Some(200));
    bridge
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stderr_on_a_full_disk_or_that_is_closed_stops_nothing_and_the_lines_are_counted() {
    let full = std::fs::File::options().write(true).open("/dev/full").expect("open it");
    let (reader, writer) = pipe().expect("make a pipe");
    drop(reader);
    for stderr in [Stdio::from(full), Stdio::from(writer)] {
        let mut bridge = works(stderr).await;
        eventually(PATIENCE, "dropped lines", async || {
            (metric(&bridge, DROPPED) > 0).then_some(())
        })
        .await;
        stop(&mut bridge);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_that_nobody_reads_stops_neither_rows_nor_sigterm_and_loses_no_line_by_itself() {
    let (mut reader, writer) = full_pipe();
    let mut bridge = works(writer.into()).await;
    assert_eq!(metric(&bridge, DROPPED), 0, "they wait");
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("it is text");
        text
    });
    stop(&mut bridge);
    let text = reading.join().expect("reading does not panic");
    for line in ["streaming", "stream ended"] {
        assert!(text.contains(line), "no {line:?} in {}", text.trim_start_matches('.'));
    }

    // And one that is never read again.
    let (_reader, writer) = full_pipe();
    let mut bridge = works(writer.into()).await;
    assert!(bridge.terminate(ENDS_WITHIN).success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_in_failure_has_its_exit_code_whatever_becomes_of_its_last_words() {
    let full = std::fs::File::options().write(true).open("/dev/full").expect("open it");
    let (_reader, writer) = full_pipe();
    for stderr in [Stdio::from(full), Stdio::from(writer)] {
        let database = TestDatabase::create().await;
        let (name, brokers) = (unique("untold"), Brokers::any().bootstrap());
        let url = format!("{}_none", database.tcp_url.split('?').next().expect("a part"));
        let telling = (Some(stderr), [].as_slice());
        let mut bridge = Bridge::start_telling(&name, &url, &brokers, "", telling);
        assert_eq!(bridge.wait(PATIENCE).code(), Some(69), "there is no such database");
    }
}
