//! Every way to log in and every level of TLS, on every version of the server, by both connections:
//! the replication connection and the SQL one must agree on all of it.

use std::path::Path;
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rowcast::config::Secret;
use rowcast::postgres::{self, ConnInfo, ConnectOptions, Error, ReplicationClient};

use crate::support::postgres::{Binaries, PostgresServer, connect};
use crate::support::process::free_port;

/// Who may log in, and how; the roles are named after the way.
const HBA: &str = "
local   all postgres trust
local   all peer     peer map=here
local   all stranger peer
host    all trust    127.0.0.1/32 trust
host    all md       127.0.0.1/32 md5
host    all scram    127.0.0.1/32 scram-sha-256
hostssl all clear    127.0.0.1/32 password
hostnossl all open   127.0.0.1/32 password
hostnossl all plain  127.0.0.1/32 trust
hostssl all cert     127.0.0.1/32 cert
hostssl all twice    127.0.0.1/32 scram-sha-256 clientcert=verify-full
";

const ROLES: &str = "
SET password_encryption = 'md5';
CREATE ROLE md LOGIN REPLICATION PASSWORD 'pw';
SET password_encryption = 'scram-sha-256';
CREATE ROLE scram LOGIN REPLICATION PASSWORD 'pw';
CREATE ROLE clear LOGIN REPLICATION PASSWORD 'pw';
CREATE ROLE open LOGIN REPLICATION PASSWORD 'pw';
CREATE ROLE twice LOGIN REPLICATION PASSWORD 'pw';
CREATE ROLE trust LOGIN REPLICATION;
CREATE ROLE plain LOGIN REPLICATION;
CREATE ROLE cert LOGIN REPLICATION;
CREATE ROLE peer LOGIN REPLICATION;
CREATE ROLE stranger LOGIN REPLICATION;
";

/// An authority that signs certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("signed").pem();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// Certificate and key for a host or, by its common name, a role.
    fn sign(&self, host: &str, common_name: &str) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![host.to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, common_name);
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        (certificate.pem(), key.serialize_pem())
    }
}

/// Starts a server with the roles, TLS, and its certificate for `localhost`.
async fn server(binaries: &Binaries, authority: &Authority) -> PostgresServer {
    let mut server = PostgresServer::start(binaries, &[]);
    connect(&server.unix_url("postgres")).await.batch_execute(ROLES).await.expect("make roles");
    let (certificate, key) = authority.sign("localhost", "server");
    let whoami = Command::new("id").arg("-un").output().expect("run id").stdout;
    let whoami = String::from_utf8(whoami).expect("a name");
    server.put_file("server.crt", &certificate);
    server.put_file("server.key", &key);
    server.put_file("root.crt", &authority.certificate);
    server.put_file("pg_ident.conf", &format!("here {} peer\n", whoami.trim()));
    server.put_file("pg_hba.conf", HBA);
    server.put_file("postgresql.auto.conf", "ssl = on\nssl_ca_file = 'root.crt'\n");
    server.stop();
    server.start_again();
    server
}

/// Logs in by both connections; what came of each.
async fn log_in(
    server: &PostgresServer,
    text: &str,
    password: Option<&str>,
) -> [Result<(), Error>; 2] {
    let text = format!("dbname=postgres port={} {text}", server.port());
    let mut info = ConnInfo::parse(&text, &|_| None).expect("a valid connection string");
    if let Some(password) = password {
        info.set_password(Secret::from(password.to_owned()));
    }
    let options = ConnectOptions::default();
    let replication = async {
        ReplicationClient::connect(&info, &options).await?.identify_system().await.map(drop)
    };
    let sql = async {
        let client = postgres::client::connect(&info, &options).await?;
        client.query_one("SELECT 1", &[]).await.expect("a query after the login");
        Ok(())
    };
    let (replication, sql) = tokio::join!(replication, sql);
    [replication, sql]
}

/// Files for clients: certificates of the right authority and of another.
struct Files(tempfile::TempDir);

impl Files {
    fn new(authority: &Authority) -> Self {
        let files = Self(tempfile::tempdir().expect("a folder"));
        files.put("right.crt", &authority.certificate);
        let other = Authority::new();
        files.put("wrong.crt", &other.certificate);
        for (name, authority, role) in
            [("cert", authority, "cert"), ("both", authority, "twice"), ("forged", &other, "cert")]
        {
            let (certificate, key) = authority.sign("client", role);
            files.put(&format!("{name}.crt"), &certificate);
            files.put(&format!("{name}.key"), &key);
        }
        files
    }

    fn put(&self, name: &str, content: &str) {
        std::fs::write(self.0.path().join(name), content).expect("write a file");
    }

    fn path(&self) -> std::path::Display<'_> {
        Path::display(self.0.path())
    }
}

const IP: &str = "hostaddr=127.0.0.1";
const NAMED: &str = "host=localhost hostaddr=127.0.0.1";

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_log_in_works_on_every_version_by_both_connections() {
    let authority = Authority::new();
    let files = Files::new(&authority);
    let files = files.path();
    for binaries in Binaries::every() {
        let server = server(binaries, &authority).await;
        let socket = server.socket_dir().display();
        for way in [
            format!("host={socket} user=postgres"),
            format!("host={socket} user=peer"),
            format!("{IP} user=trust sslmode=disable"),
            format!("{IP} user=md sslmode=disable"),
            format!("{IP} user=md sslmode=require"),
            format!("{IP} user=scram sslmode=disable"),
            format!("{IP} user=scram sslmode=prefer"),
            format!("{IP} user=scram sslmode=require channel_binding=disable"),
            format!("{IP} user=scram sslmode=require channel_binding=require"),
            format!("{IP} user=clear sslmode=require"),
            format!("{IP} user=clear sslmode=prefer"),
            format!("{IP} user=clear sslmode=allow"),
            // What the server refuses with TLS is tried without.
            format!("{IP} user=plain sslmode=prefer"),
            format!("{IP} user=plain sslmode=allow"),
            format!("{IP} user=scram sslmode=verify-ca sslrootcert={files}/right.crt"),
            format!("{NAMED} user=scram sslmode=verify-full sslrootcert={files}/right.crt"),
            format!(
                "{NAMED} user=scram sslmode=verify-full sslrootcert={files}/right.crt \
                 channel_binding=require"
            ),
            format!(
                "{IP} user=cert sslmode=require sslcert={files}/cert.crt sslkey={files}/cert.key"
            ),
            format!(
                "{NAMED} user=twice sslmode=verify-full sslrootcert={files}/right.crt \
                 sslcert={files}/both.crt sslkey={files}/both.key"
            ),
        ] {
            for result in log_in(&server, &way, Some("pw")).await {
                assert!(result.is_ok(), "{binaries}: {way}: {result:?}");
            }
        }
    }
}

type Check = fn(&Error) -> bool;

fn refused(error: &Error) -> bool {
    matches!(error, Error::AuthFailed(error) if matches!(&*error.sqlstate, "28P01" | "28000"))
}

fn handshake(error: &Error) -> bool {
    matches!(error, Error::TlsHandshake { .. })
}

fn missing(error: &Error) -> bool {
    matches!(error, Error::PasswordMissing { .. })
}

fn cleartext(error: &Error) -> bool {
    matches!(error, Error::CleartextRefused)
}

fn binding(error: &Error) -> bool {
    matches!(error, Error::ChannelBinding { .. })
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "one scenario, step by step")]
async fn a_login_that_cannot_work_is_refused_at_once_with_what_mends_it() {
    let authority = Authority::new();
    let files = Files::new(&authority);
    let files = files.path();
    for binaries in Binaries::every() {
        let server = server(binaries, &authority).await;
        let socket = server.socket_dir().display();
        let ways: [(String, Option<&str>, Check); 17] = [
            (format!("host={socket} user=stranger"), None, refused),
            (format!("{IP} user=scram sslmode=disable"), Some("wrong"), refused),
            (format!("{IP} user=scram sslmode=require"), Some("wrong"), refused),
            (format!("{IP} user=md sslmode=disable"), Some("wrong"), refused),
            (format!("{IP} user=clear sslmode=require"), Some("wrong"), refused),
            (format!("{IP} user=nobody sslmode=require"), Some("pw"), refused),
            (format!("{IP} user=scram sslmode=disable"), None, missing),
            (format!("{IP} user=md sslmode=disable"), None, missing),
            (format!("{IP} user=clear sslmode=require"), None, missing),
            (format!("{IP} user=open sslmode=disable"), Some("pw"), cleartext),
            (format!("{IP} user=md sslmode=require channel_binding=require"), Some("pw"), binding),
            (
                format!("{IP} user=scram sslmode=disable channel_binding=require"),
                Some("pw"),
                binding,
            ),
            (
                format!("{IP} user=scram sslmode=verify-ca sslrootcert={files}/wrong.crt"),
                Some("pw"),
                handshake,
            ),
            (
                format!("{NAMED} user=scram sslmode=verify-full sslrootcert={files}/wrong.crt"),
                Some("pw"),
                handshake,
            ),
            (
                format!(
                    "host=elsewhere {IP} user=scram sslmode=verify-full \
                     sslrootcert={files}/right.crt"
                ),
                Some("pw"),
                handshake,
            ),
            (format!("{IP} user=cert sslmode=require"), None, refused),
            (
                format!(
                    "{IP} user=cert sslmode=require sslcert={files}/both.crt \
                     sslkey={files}/both.key"
                ),
                None,
                refused,
            ),
        ];
        for (way, password, expected) in ways {
            for result in log_in(&server, &way, password).await {
                let error = result.expect_err(&way);
                assert!(expected(&error), "{binaries}: {way}: {error:?}");
                assert!(!error.is_transient(), "{binaries}: {way}: {error:?}");
                assert!(error.fix().is_some(), "{binaries}: {way}: {error:?}");
                let told = format!("{error} {error:?}");
                assert!(!told.contains("wrong\""), "{binaries}: {way}: {told}");
            }
        }
        // An alert of the server's about a certificate that it does not trust.
        let forged = format!(
            "{IP} user=cert sslmode=require sslcert={files}/forged.crt sslkey={files}/forged.key"
        );
        for result in log_in(&server, &forged, None).await {
            let error = result.expect_err(&forged);
            assert!(!error.is_transient(), "{binaries}: {forged}: {error:?}");
            assert!(error.fix().is_some(), "{binaries}: {forged}: {error:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_hosts_the_first_of_the_wanted_kind_is_taken() {
    for binaries in Binaries::every() {
        let server = PostgresServer::start(binaries, &[]);
        let read_only = PostgresServer::start(binaries, &[("default_transaction_read_only", "on")]);
        let (down, writes, reads) = (free_port(), server.port(), read_only.port());
        for (attrs, expected) in [
            ("any", Some(reads)),
            ("read-write", Some(writes)),
            ("read-only", Some(reads)),
            ("primary", Some(reads)),
            ("prefer-standby", Some(reads)),
            ("standby", None),
        ] {
            let hosts = format!("127.0.0.1:{down},127.0.0.1:{reads},127.0.0.1:{writes}");
            let url = format!("postgres://postgres@{hosts}/?target_session_attrs={attrs}");
            let info = ConnInfo::parse(&url, &|_| None).expect("a valid connection string");
            let options = ConnectOptions::default();
            let replication = ReplicationClient::connect(&info, &options).await;
            let sql = postgres::client::connect(&info, &options).await;
            let Some(port) = expected else {
                for error in [replication.map(drop), sql.map(drop)] {
                    let error = error.expect_err("there is no standby");
                    assert!(error.is_transient(), "{binaries}: {error:?}");
                    assert!(error.to_string().contains("not a standby"), "{binaries}: {error}");
                }
                continue;
            };
            let address = replication.expect(attrs).address().to_owned();
            assert!(address.ends_with(&port.to_string()), "{binaries}, {attrs}: {address}");
            let row = sql.expect(attrs).query_one("SHOW port", &[]).await.expect("a port");
            assert_eq!(row.get::<_, &str>(0), port.to_string(), "{binaries}, {attrs}");
        }
    }
}
