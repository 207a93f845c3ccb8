//! Connection strings mean what libpq takes them to mean, and what it refuses is refused by name.

use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;

use super::*;

fn parse_with(text: &str, variables: &[(&str, &str)]) -> Result<ConnInfo, ConnInfoError> {
    ConnInfo::parse(text, &|name| {
        let found = variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    })
}

fn parse(text: &str) -> ConnInfo {
    parse_with(text, &[("PGUSER", "me")]).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn hosts(text: &str) -> Vec<String> {
    parse(text).hosts().iter().map(ToString::to_string).collect()
}

#[test]
fn both_spellings_mean_the_same() {
    let pairs = [
        ("postgres://u:p@h:6/d", "host=h port=6 user=u password=p dbname=d"),
        (
            "postgresql://u@[::1]:6/d?sslmode=require",
            "host=::1 port=6 user=u dbname=d sslmode=require",
        ),
        ("postgres://%2Fvar%2Frun/d", "host = /var/run dbname = d"),
        ("postgres:///d?host=/var/run&user=a%20b", r"host=/var/run dbname=d user='a b'"),
        ("postgres://a:1,b:2/d", "host=a,b port=1,2 dbname=d"),
        ("postgres://u:p%2F%40w@h/d", "host=h user=u password=p/@w dbname=d"),
        ("postgres://h/d?ssl=true", "host=h dbname=d sslmode=require"),
        ("postgres://h/d?password=it%27s", r"host=h dbname=d password='it\'s'"),
    ];
    for (url, key_values) in pairs {
        assert_eq!(parse(url), parse(key_values), "{url}");
    }
}

#[test]
fn an_at_sign_in_a_password_needs_no_escape() {
    let info = parse("postgres://u:p@ss@h/d");
    assert_eq!(info.password_for(&info.hosts()[0]).map(Secret::expose), Some("p@ss"));
    assert_eq!(info.hosts()[0].to_string(), "h:5432");
}

#[test]
fn hosts_are_tried_in_order_each_with_its_port() {
    assert_eq!(hosts("host=a,b port=1"), ["a:1", "b:1"]);
    assert_eq!(hosts("host=a,b port=1,"), ["a:1", "b:5432"]);
    assert_eq!(hosts("host=/run/pg"), ["/run/pg/.s.PGSQL.5432"]);
    assert_eq!(hosts("host=10.0.0.1,::1"), ["10.0.0.1:5432", "[::1]:5432"]);
    assert_eq!(hosts("host=db hostaddr=10.0.0.1"), ["db (10.0.0.1):5432"]);
}

#[test]
fn without_a_host_the_socket_directories_come_first() {
    let tried = hosts("port=5");
    assert_eq!(tried.first().map(String::as_str), Some("/var/run/postgresql/.s.PGSQL.5"));
    assert_eq!(tried.last().map(String::as_str), Some("localhost:5"));
}

#[test]
fn the_environment_fills_in_only_what_the_string_leaves_open() {
    let variables = [
        ("PGHOST", "env-host"),
        ("PGPORT", "7"),
        ("PGUSER", "env-user"),
        ("PGPASSWORD", "env-password"),
        ("PGDATABASE", "env-database"),
        ("PGSSLMODE", "disable"),
    ];
    let info = parse_with("", &variables).expect("valid");
    assert_eq!(info.hosts()[0].to_string(), "env-host:7");
    assert_eq!((info.user(), info.database()), ("env-user", "env-database"));
    assert_eq!(info.password_for(&info.hosts()[0]).map(Secret::expose), Some("env-password"));
    assert_eq!(info.ssl_mode, SslMode::Disable);

    let info = parse_with("postgres://u:p@h:8/d?sslmode=require", &variables).expect("valid");
    assert_eq!(info.hosts()[0].to_string(), "h:8");
    assert_eq!((info.user(), info.database(), info.ssl_mode), ("u", "d", SslMode::Require));
}

#[test]
fn the_database_defaults_to_the_user() {
    assert_eq!(parse("user=someone").database(), "someone");
}

#[test]
fn the_password_file_gives_each_host_its_own() {
    let file = tempfile::NamedTempFile::new().expect("temp file");
    std::fs::write(file.path(), "a:5432:d:u:first\nb:*:*:*:second\n").expect("write");
    std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o600)).expect("chmod");
    let path = file.path().to_str().expect("utf-8");
    let info = parse_with("host=a,b,c user=u dbname=d", &[("PGPASSFILE", path)]).expect("valid");
    let password = |host| info.password_for(&info.hosts()[host]).map(Secret::expose);
    assert_eq!([password(0), password(1), password(2)], [Some("first"), Some("second"), None]);

    let mut info = info.clone();
    info.set_password(Secret::from("set".to_owned()));
    assert_eq!(info.password_for(&info.hosts()[0]).map(Secret::expose), Some("set"));
}

#[test]
fn a_mode_that_verifies_needs_something_to_verify_against() {
    let error = parse_with("host=h user=u sslmode=verify-full", &[]).expect_err("no roots");
    assert!(error.to_string().contains("sslrootcert"), "{error}");
    assert_eq!(parse("sslmode=verify-ca sslrootcert=/x").ssl_roots, SslRoots::File("/x".into()));
    assert_eq!(parse("sslmode=require").ssl_roots, SslRoots::None);
    assert_eq!(parse("sslmode=require sslrootcert=/x").ssl_roots, SslRoots::File("/x".into()));
    let system = parse("sslrootcert=system");
    assert_eq!((system.ssl_mode, system.ssl_roots), (SslMode::VerifyFull, SslRoots::System));
    assert!(parse_with("user=u sslrootcert=system sslmode=require", &[]).is_err());

    let home = tempfile::tempdir().expect("temp dir");
    std::fs::create_dir(home.path().join(".postgresql")).expect("mkdir");
    let default = home.path().join(".postgresql/root.crt");
    std::fs::write(&default, "").expect("write");
    let variables = [("HOME", home.path().to_str().expect("utf-8"))];
    let info = parse_with("user=u sslmode=verify-full", &variables).expect("valid");
    assert_eq!(info.ssl_roots, SslRoots::File(default));
}

#[test]
fn timeouts_and_keepalives_are_read() {
    let info = parse("connect_timeout=3 keepalives_idle=4 tcp_user_timeout=500");
    assert_eq!(info.connect_timeout, Some(Duration::from_secs(3)));
    assert_eq!(info.keepalive.and_then(|keepalive| keepalive.idle), Some(Duration::from_secs(4)));
    assert_eq!(info.tcp_user_timeout, Some(Duration::from_millis(500)));
    assert_eq!(parse("keepalives=0 connect_timeout=0").keepalive, None);
    assert_eq!(parse("connect_timeout=-1").connect_timeout, None);
}

#[test]
fn what_is_refused_is_named() {
    let refused = [
        ("user=u hots=h", "hots"),
        ("postgres://u@h/d?sslmod=require", "sslmod"),
        ("user=u sslmode=on", "sslmode"),
        ("user=u port=0", "port"),
        ("user=u port=70000", "70000"),
        ("user=u host=a,b,c port=1,2", "port"),
        ("user=u hostaddr=name", "hostaddr"),
        ("user=u host=a,b hostaddr=10.0.0.1", "host"),
        ("user=u target_session_attrs=master", "target_session_attrs"),
        ("user=u client_encoding=latin1", "client_encoding"),
        ("user=u gssencmode=require", "gssencmode"),
        ("user=u service=x", "service"),
        ("user=u passfile=/nonexistent/file", "/nonexistent/file"),
        ("mysql://h/d", "scheme"),
        ("shop", "key=value"),
        ("user='u", "quote"),
        ("postgres://u%2@h", "percent"),
        ("postgres://[::1/d", "bracket"),
    ];
    for (text, named) in refused {
        let error = parse_with(text, &[]).expect_err(text).to_string();
        assert!(error.contains(named), "{text}: {error}");
    }
    let error = parse_with("user=u", &[("PGSSLMODE", "on")]).expect_err("wrong").to_string();
    assert!(error.contains("PGSSLMODE"), "{error}");
}

#[test]
fn no_password_is_shown() {
    let mut info = parse("postgres://u:hunter2@h/d");
    assert!(!format!("{info:?}").contains("hunter2"));
    info.set_password(Secret::from("hunter3".to_owned()));
    assert!(!format!("{info:?}").contains("hunter3"));
    for text in ["postgres://u:hunter2/x@h/d", "postgres://u:hunter2?x@h/d", "password='hunter2"] {
        let error = parse_with(text, &[("PGUSER", "me")]).expect_err(text);
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
}

proptest! {
    #[test]
    fn no_text_panics(text: String) {
        let _ = parse_with(&text, &[]);
    }

    #[test]
    fn no_url_panics(text in "postgres://[a-z0-9:@/?&=%\\[\\],.]{0,40}") {
        let _ = parse_with(&text, &[]);
    }

    #[test]
    fn a_quoted_password_arrives_as_it_was(password in "[^\0]{1,20}") {
        let quoted = password.replace('\\', r"\\").replace('\'', r"\'");
        let info = parse(&format!("host=h password='{quoted}'"));
        let host = &info.hosts()[0];
        prop_assert_eq!(info.password_for(host).map(Secret::expose), Some(password.as_str()));
    }
}
