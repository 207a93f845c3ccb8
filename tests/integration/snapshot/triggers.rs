//! How a snapshot is asked for: over HTTP, by the command line, in the stream, by a new table.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::support::bridge::Bridge;
use crate::support::kafka::Brokers;
use crate::support::postgres::TestDatabase;
use crate::support::{PATIENCE, unique};

/// Status and body of a request to the admin endpoint.
fn ask(bridge: &Bridge, method: &str, path: &str, headers: &str, body: &Value) -> (u16, Value) {
    let mut stream = TcpStream::connect(("127.0.0.1", bridge.admin_port())).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("set a limit");
    let body = body.to_string();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    );
    stream.write_all(request.as_bytes()).expect("ask");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let code = head.split_whitespace().nth(1).expect("a code").parse().expect("a number");
    (code, serde_json::from_str(body).expect("JSON"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_is_refused_at_once_with_the_cause_and_the_fix() {
    let brokers = Brokers::any();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    let tables = "CREATE TABLE rides (id int PRIMARY KEY); CREATE TABLE zones (id int PRIMARY KEY)";
    client.batch_execute(tables).await.expect("make tables");
    let name = unique("refused");
    let config = "[postgres]\ntables = [\"public.rides\"]\n";
    let bootstrap = brokers.bootstrap();
    let bridge = Bridge::start_ready(&name, &database.unix_url, &bootstrap, config, PATIENCE);
    for (body, code, error, fix) in [
        (json!({"tables": ["public.zones"]}), 404, "matches \"public.zones\"", "has public.rides;"),
        (json!({"tables": ["public.ride"]}), 404, "matches \"public.ride\"", "public.rides"),
        (json!({"tables": ["rides"]}), 400, "write \"public.rides\"", ""),
        (json!({"tables": []}), 400, "no table is named", ""),
        (
            json!({"tables": ["public.rides"], "were": "id > 1"}),
            400,
            "unknown field `were`",
            "send",
        ),
        (
            json!({"tables": ["public.rides"], "where": "fare > 1"}),
            422,
            "column \"fare\" does not exist",
            "behind WHERE",
        ),
        (
            json!({"tables": ["public.rides"], "where": "true); DROP TABLE zones; SELECT (true"}),
            422,
            "multiple commands",
            "behind WHERE",
        ),
    ] {
        let (status, answer) = ask(&bridge, "POST", "/snapshots", "", &body);
        assert_eq!(status, code, "{body}: {answer}");
        assert!(answer["error"].as_str().expect("a cause").contains(error), "{body}: {answer}");
        let told = answer["fix"].as_str().unwrap_or_default();
        assert!(told.contains(fix), "{body}: {answer}");
    }
    let (status, answer) = ask(&bridge, "POST", "/snapshots/7/pause", "", &Value::Null);
    assert_eq!((status, &answer["error"]), (404, &json!("there is no snapshot \"7\"")));
    let (status, answer) = ask(&bridge, "POST", "/snapshots/7/pose", "", &Value::Null);
    assert_eq!((status, &answer["fix"]), (404, &json!("there are pause, resume and stop")));
    let (_, list) = ask(&bridge, "GET", "/snapshots", "", &Value::Null);
    let asked = |listed: &&Value| listed["reason"] == "asked";
    assert_eq!(list["snapshots"].as_array().expect("a list").iter().filter(asked).count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_asks_from_elsewhere_without_the_token() {
    let brokers = Brokers::any();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    client.batch_execute("CREATE TABLE rides (id int PRIMARY KEY)").await.expect("make a table");
    let name = unique("token");
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "s3cret\n").expect("write the token");
    let config = format!("[admin]\ntoken_file = \"{}\"\n", file.path().display());
    let bootstrap = brokers.bootstrap();
    let bridge = Bridge::start_ready(&name, &database.unix_url, &bootstrap, &config, PATIENCE);
    let body = json!({"tables": ["public.none"]});
    let asked = |headers: &str| ask(&bridge, "POST", "/snapshots", headers, &body).0;
    assert_eq!(asked(""), 401);
    assert_eq!(asked("Authorization: Bearer wrong\r\n"), 401);
    assert_eq!(
        asked("Authorization: Bearer s3cret\r\n"),
        404,
        "let in, and there is no such table"
    );
    assert_eq!(asked("Authorization: Bearer s3cret\r\nOrigin: http://localhost\r\n"), 403);
    assert_eq!(bridge.get("/status").expect("an answer").0, 200, "to look is free");
    assert_eq!(bridge.get("/snapshots").expect("an answer").0, 200);
}
