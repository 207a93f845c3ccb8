//! What the program promises at its edge: exit codes, and what it prints where.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

/// The program, in a directory of its own and with nothing of ours in its environment.
fn rowcast(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rowcast"));
    for (name, _) in std::env::vars_os() {
        let ours = name.to_str().is_some_and(|name| name.starts_with("ROWCAST_"));
        if ours || name == "DATABASE_URL" || name == "KAFKA_BROKERS" {
            command.env_remove(name);
        }
    }
    command.current_dir(directory).args(arguments);
    command
}

fn output(arguments: &[&str]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    rowcast(directory.path(), arguments).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("an exit code")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn help_and_version_are_no_failure_and_list_the_exit_codes() {
    let version = output(&["--version"]);
    assert_eq!(code(&version), 0);
    assert_eq!(stdout(&version), format!("rowcast {}\n", env!("CARGO_PKG_VERSION")));
    let help = output(&["--help"]);
    assert_eq!(code(&help), 0);
    for exit in ["   0  ", "   1  ", "  64  ", "  69  ", "  70  ", "  78  "] {
        assert!(stdout(&help).contains(exit), "{exit} is missing in:\n{}", stdout(&help));
    }
    for command in ["run", "config", "status", "snapshot", "teardown", "generate", "tail", "demo"] {
        let help = output(&[command, "--help"]);
        assert_eq!(code(&help), 0, "{command}");
        assert!(stdout(&help).contains("rowcast"), "{command} shows no example");
    }
}

#[test]
fn a_wrong_command_line_ends_with_64() {
    for arguments in [
        &["rum"][..],
        &[],
        &["config", "--format", "xml"],
        &["config", "--set", "novalue"],
        &["generate", "--rate", "-1"],
        &["demo", "--brokers", "a:1", "--broker", "kafka"],
        &["snapshot"],
        &["snapshot", "--where", "a > 1"],
        &["snapshot", "public.a", "--list"],
        &["snapshot", "--pause", "1", "--stop", "1"],
    ] {
        let output = output(arguments);
        assert_eq!(code(&output), 64, "{arguments:?}: {}", stderr(&output));
        assert!(!stderr(&output).is_empty());
    }
}

#[test]
fn a_wrong_configuration_ends_with_78_and_names_every_problem() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("rowcast.toml"), "[postgres]\nslto = \"s\"\n").unwrap();
    for command in ["config", "run", "teardown"] {
        let mut command = rowcast(directory.path(), &[command, "--brokers", "a:b"]);
        let output = command.env("ROWCAST_NMAE", "n").output().unwrap();
        assert_eq!(code(&output), 78);
        assert_eq!(stdout(&output), "");
        assert_eq!(
            stderr(&output),
            "error: reading the configuration: 3 problems\n  \
             rowcast.toml:2: postgres.slto: unknown key; did you mean postgres.slot?\n  \
             ROWCAST_NMAE: unknown variable; did you mean ROWCAST_NAME?\n  \
             --brokers: kafka.brokers: \"a:b\" is not a broker; write host:port, several with \
             commas\n"
        );
    }
}

#[test]
fn the_configuration_is_printed_with_origins_and_without_secrets() {
    let directory = tempfile::tempdir().unwrap();
    let toml = "[kafka.properties]\n\"sasl.password\" = \"hunter2\"\n";
    std::fs::write(directory.path().join("rowcast.toml"), toml).unwrap();
    for format in ["text", "toml", "json"] {
        let arguments = ["config", "--format", format, "--name", "taxi", "--log-level", "debug"];
        let mut command = rowcast(directory.path(), &arguments);
        command.env("DATABASE_URL", "postgres://u:hunter2@h/db");
        let output = command.output().unwrap();
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        let text = stdout(&output);
        assert!(!text.contains("hunter2"), "{text}");
        for shown in [
            "DATABASE_URL",
            "--name",
            "--log-level",
            "rowcast.toml:2",
            "postgres://u:********@h/db",
        ] {
            assert!(text.contains(shown), "{format} lacks {shown}:\n{text}");
        }
    }
}

/// Answers each connection with what belongs to the request that it makes.
fn bridge(answers: Vec<(&'static str, &'static str)>) -> (String, std::thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = std::thread::spawn(move || {
        for (asked, answer) in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            let mut byte = [0_u8];
            while !request.ends_with(b"\r\n\r\n") {
                stream.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            let head = String::from_utf8(request).unwrap();
            let asked =
                if asked.starts_with('/') { format!("GET {asked}") } else { asked.to_owned() };
            // What is posted stands behind the path.
            let (line, body) = asked.split_once('\n').unwrap_or((&asked, ""));
            assert!(head.starts_with(&format!("{line} HTTP/1.0\r\n")), "{head}");
            let mut posted = vec![0; body.len()];
            stream.read_exact(&mut posted).unwrap();
            assert_eq!(String::from_utf8(posted).unwrap(), body);
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    (address, server)
}

#[test]
fn status_tells_a_ready_bridge_from_one_that_is_not() {
    let (address, server) = bridge(vec![
        ("/readyz", "HTTP/1.0 200 OK\r\n\r\nready\n"),
        ("/status", "HTTP/1.0 200 OK\r\n\r\n{\"phase\":\"streaming\"}"),
    ]);
    let ready = output(&["status", "--address", &address]);
    assert_eq!((code(&ready), stdout(&ready).as_str()), (0, "{\"phase\":\"streaming\"}\n"));
    server.join().unwrap();

    let answer = "HTTP/1.0 503 Service Unavailable\r\n\r\npreflight\n";
    let (address, server) = bridge(vec![("/readyz", answer)]);
    // The address of the configuration holds where none is given.
    let starting = output(&["status", "--set", &format!("admin.listen={address}")]);
    assert_eq!(code(&starting), 1);
    let expected = format!("error: the bridge at {address} is not ready: preflight\n");
    assert_eq!(stderr(&starting), expected);
    server.join().unwrap();

    let gone = output(&["status", "--address", &address]);
    assert_eq!(code(&gone), 1);
    assert!(stderr(&gone).starts_with(&format!("error: asking the bridge at {address}: ")));
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = rowcast(directory.path(), &["config"]);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

const TAKE: &str = "POST /snapshots\n{\"tables\":[\"public.a\"],\"where\":\"n > 1\"}";
const TAKEN: &str = "HTTP/1.0 202 Accepted\r\n\r\n{\"id\":\"7\",\"tables\":[\"public.a\"]}";

/// What `GET /snapshots` answers of one table.
fn listed(state: &str, rows: u64) -> &'static str {
    let snapshot = format!(
        r#"{{"id":"7","table":"public.a","reason":"asked","condition":"n > 1","state":"{state}",
        "rows":{rows},"rows_estimated":null,"note":null,"percent":50.0,"rows_per_second":10,
        "eta_seconds":3}}"#
    );
    let progress = r#"{"running":false,"tables_total":0,"tables_left":0,"rows":0,"bytes":0,
        "percent":0.0,"rows_per_second":0,"bytes_per_second":0,"elapsed_seconds":0,
        "eta_seconds":null,"tables":[]}"#;
    let body = format!(r#"{{"snapshots":[{snapshot}],"progress":{progress}}}"#);
    Box::leak(format!("HTTP/1.0 200 OK\r\n\r\n{body}").into_boxed_str())
}

#[test]
fn a_snapshot_is_asked_for_and_followed_to_its_end() {
    let (address, server) = bridge(vec![
        (TAKE, TAKEN),
        ("/snapshots", listed("running", 50)),
        ("/snapshots", listed("done", 100)),
    ]);
    let arguments = ["snapshot", "public.a", "--where", "n > 1", "--follow", "--address", &address];
    let done = output(&arguments);
    server.join().unwrap();
    assert_eq!(code(&done), 0, "{}", stderr(&done));
    assert_eq!(
        stdout(&done),
        "snapshot 7 of public.a\n\
         public.a  running  50.0 %  50 rows  10 rows/s  3s left\n\
         public.a  done  50.0 %  100 rows  10 rows/s  3s left\n"
    );

    let answers = vec![(TAKE, TAKEN), ("/snapshots", listed("stopped", 50))];
    let (address, server) = bridge(answers);
    let arguments = ["snapshot", "public.a", "--where", "n > 1", "--follow", "--address", &address];
    let stopped = output(&arguments);
    server.join().unwrap();
    assert_eq!(code(&stopped), 1);
    assert!(stderr(&stopped).contains("ended unfinished: public.a  stopped"), "{stopped:?}");
}

#[test]
fn snapshots_are_listed_paused_resumed_and_stopped() {
    let (address, server) = bridge(vec![("/snapshots", listed("paused", 50))]);
    let list = output(&["snapshot", "--list", "--address", &address]);
    server.join().unwrap();
    assert!(stdout(&list).starts_with("7 (asked) where n > 1\n  public.a  paused"), "{list:?}");
    for (flag, path, told) in [
        ("--pause", "POST /snapshots/7/pause", "snapshot 7 pauses\n"),
        ("--resume", "POST /snapshots/7/resume", "snapshot 7 goes on\n"),
        ("--stop", "POST /snapshots/7/stop", "snapshot 7 stops\n"),
    ] {
        let (address, server) = bridge(vec![(path, TAKEN)]);
        let done = output(&["snapshot", flag, "7", "--address", &address]);
        server.join().unwrap();
        assert_eq!((code(&done), stdout(&done).as_str()), (0, told));
    }
}

#[test]
fn what_a_bridge_refuses_is_told_with_its_fix() {
    for (answer, exit) in [
        ("HTTP/1.0 404 Not Found\r\n\r\n{\"error\":\"no such table\",\"fix\":\"widen\"}", 64),
        ("HTTP/1.0 503 Busy\r\n\r\n{\"error\":\"no such table\",\"fix\":\"widen\"}", 1),
    ] {
        let (address, server) = bridge(vec![(TAKE, answer)]);
        let arguments = ["snapshot", "public.a", "--where", "n > 1", "--address", &address];
        let refused = output(&arguments);
        server.join().unwrap();
        assert_eq!(code(&refused), exit);
        assert_eq!(stderr(&refused), "error: no such table\nfix: widen\n");
    }
}

#[test]
fn a_process_that_may_open_too_few_files_does_not_start_and_says_how_many_it_needs() {
    let directory = tempfile::tempdir().unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -n 255 && exec \"$0\" run", env!("CARGO_BIN_EXE_rowcast")]);
    shell.env("DATABASE_URL", "postgres://u@127.0.0.1:1/d").env("KAFKA_BROKERS", "127.0.0.1:1");
    let refused = shell.current_dir(directory.path()).output().unwrap();
    assert_eq!(code(&refused), 78, "{refused:?}");
    let error = stderr(&refused);
    assert!(error.contains("may open 255") && error.contains("needs 256"), "{error}");
    assert!(error.contains("fix: raise its limit to 256 or more"), "{error}");
}
