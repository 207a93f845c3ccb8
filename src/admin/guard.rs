//! Decides which requests the admin endpoint accepts, before a handler sees them.
//!
//! | listens on | token | pages |
//! |---|---|---|
//! | loopback | any | all; a change also passes `Requests::admit` |
//! | another address | none | `/livez`, `/readyz` and `/metrics` only |
//! | another address | set | those, and the rest with the token |
//!
//! On every address the request must name an allowed host. A web page can point its own host name
//! at this address (DNS rebinding) and would then read the endpoint's responses; the request
//! carries the name that the page was loaded from. An IP address can't be repointed, so every IP
//! address is accepted, and so is an HTTP/1.0 request without a host: no browser sends one.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State as Extract};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Uri, Version, header};
use axum::middleware::Next;
use axum::response::Response;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::Refusal;
use crate::config::{Admin, Secret};

/// Pages that anyone who reaches the endpoint may read.
const OPEN: [&str; 3] = ["/livez", "/readyz", "/metrics"];

/// Longest wait for the body after the header. A body fits into one packet.
const BODY: Duration = Duration::from_secs(5);

/// Longest body. No valid request needs more, and the body is held in memory.
const MAX_BODY_BYTES: usize = 64 << 10;

/// Longest time for a response, which may need a query to the database.
const ANSWER: Duration = Duration::from_secs(30);

/// The settings that decide which requests are accepted.
#[derive(Debug, Clone)]
pub struct Guard {
    hosts: Vec<String>,
    token: Option<Secret>,
    is_local: bool,
}

impl Guard {
    /// The guard of an endpoint with these settings and their token.
    #[must_use]
    pub fn new(settings: &Admin, token: Option<Secret>) -> Self {
        let hosts = settings.hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
        Self { hosts, token, is_local: settings.listen.ip().is_loopback() }
    }

    fn admit(&self, request: &Request) -> Result<(), Refusal> {
        self.check_host(request.uri(), request.version(), request.headers())?;
        if self.is_local || OPEN.contains(&request.uri().path()) {
            return Ok(());
        }
        match &self.token {
            None => Err(Refusal::new(
                403,
                "admin.listen is not a loopback address, so this is closed without a token",
                "set admin.token_file, and send Authorization: Bearer with the token in it",
            )),
            Some(token) if brings(request.headers(), token) => Ok(()),
            Some(_) => Err(Refusal::new(
                401,
                "this requires the token of admin.token_file",
                "send Authorization: Bearer with the token in it",
            )),
        }
    }

    fn check_host(&self, uri: &Uri, version: Version, headers: &HeaderMap) -> Result<(), Refusal> {
        let unclear = |error: &str| Refusal::new(400, error, "send one header Host");
        let mut named = headers.get_all(header::HOST).iter();
        let (first, second) = (named.next(), named.next());
        if second.is_some() {
            return Err(unclear("the request names several hosts"));
        }
        if let Some(authority) = uri.authority() {
            self.check_name(authority)?;
        }
        let Some(host) = first else {
            let may_omit = version < Version::HTTP_11 || uri.authority().is_some();
            return if may_omit { Ok(()) } else { Err(unclear("the request names no host")) };
        };
        let authority = Authority::try_from(host.as_bytes());
        self.check_name(&authority.map_err(|_| unclear("the header Host can't be read"))?)
    }

    fn check_name(&self, authority: &Authority) -> Result<(), Refusal> {
        let name = authority.host().to_ascii_lowercase();
        let name = name.strip_suffix('.').unwrap_or(&name);
        let literal = name.trim_start_matches('[').trim_end_matches(']');
        let is_ours = literal.parse::<IpAddr>().is_ok()
            || name == "localhost"
            || name.ends_with(".localhost")
            || self.hosts.iter().any(|host| host == name);
        if is_ours && !authority.as_str().contains('@') {
            return Ok(());
        }
        // The name comes from the sender: it is quoted and cut, and returned only to the sender.
        let shown: String = name.chars().take(80).collect();
        let error = format!("this endpoint does not answer to the name {shown:?}");
        Err(Refusal::new(
            421,
            error,
            "use an IP address or localhost, or add the name to admin.hosts",
        ))
    }
}

/// Whether the request carries the token. Takes constant time: digests of equal length are compared
/// to the end.
pub(super) fn brings(headers: &HeaderMap, token: &Secret) -> bool {
    let brought = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    let (wanted, got) =
        (Sha256::digest(token.expose()), Sha256::digest(brought.unwrap_or_default()));
    brought.is_some() & bool::from(wanted.as_slice().ct_eq(got.as_slice()))
}

/// Refuses requests that are not allowed, reads the body within its bounds, and bounds the time of
/// the response.
pub(super) async fn guard(
    Extract(guard): Extract<Arc<Guard>>,
    request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    guard.admit(&request)?;
    let (head, body) = request.into_parts();
    let late = |error: &str| Refusal::new(408, error, "send it again");
    let body = tokio::time::timeout(BODY, to_bytes(body, MAX_BODY_BYTES))
        .await
        .map_err(|_| late("the rest of the request did not arrive in time"))?
        .map_err(|_| {
            let error = format!("the request is incomplete, or larger than {MAX_BODY_BYTES} bytes");
            Refusal::new(413, error, "request fewer tables at a time")
        })?;
    let request = Request::from_parts(head, Body::from(body));
    tokio::time::timeout(ANSWER, next.run(request)).await.map_err(|_| {
        let after = humantime::format_duration(ANSWER);
        Refusal::new(503, format!("no response within {after}"), "try again")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(listen: &str, hosts: &[&str], token: Option<&str>) -> Guard {
        let hosts = hosts.iter().map(|&host| host.to_owned()).collect();
        let listen = listen.parse().expect("an address");
        let settings = Admin { listen, hosts, ..Admin::default() };
        Guard::new(&settings, token.map(|token| Secret::from(token.to_owned())))
    }

    fn request(uri: &str, version: Version, headers: &[(&str, &str)]) -> Request {
        let builder = Request::builder().uri(uri).version(version);
        let with = |builder: axum::http::request::Builder, (name, value): &(&str, &str)| {
            builder.header(*name, *value)
        };
        headers.iter().fold(builder, with).body(Body::empty()).expect("a request")
    }

    #[test]
    fn only_names_that_are_ours_are_answered() {
        let guard = guard("127.0.0.1:9464", &["Rowcast.example", "rowcast"], None);
        for (host, code) in [
            ("localhost", 200),
            ("LOCALHOST:9464", 200),
            ("localhost.", 200),
            ("app.localhost:1", 200),
            ("127.0.0.1:9464", 200),
            ("10.1.2.3", 200),
            ("[::1]:9464", 200),
            ("rowcast:9464", 200),
            ("ROWCAST.example", 200),
            ("evil.example", 421),
            ("evil.example:9464", 421),
            ("localhost.evil.example", 421),
            ("notlocalhost", 421),
            ("127.0.0.1.evil.example", 421),
            ("evil.example@127.0.0.1", 421),
            ("sub.rowcast", 421),
            ("", 400),
            ("a b", 400),
        ] {
            let request = request("/status", Version::HTTP_11, &[("host", host)]);
            let answered = guard.admit(&request).map_or_else(|refusal| refusal.code, |()| 200);
            assert_eq!(answered, code, "{host}");
        }
    }

    #[test]
    fn a_request_has_one_host_wherever_it_is_written() {
        let guard = guard("127.0.0.1:9464", &[], None);
        let (ours, foreign) = (("host", "localhost"), ("host", "evil.example"));
        for (uri, version, headers, code) in [
            ("/status", Version::HTTP_10, &[][..], 200),
            ("/status", Version::HTTP_11, &[], 400),
            ("/status", Version::HTTP_10, &[foreign], 421),
            ("/status", Version::HTTP_11, &[ours, foreign], 400),
            ("http://evil.example/status", Version::HTTP_11, &[ours], 421),
            ("http://localhost/status", Version::HTTP_11, &[foreign], 421),
            ("http://localhost/status", Version::HTTP_11, &[ours], 200),
        ] {
            let request = request(uri, version, headers);
            let answered = guard.admit(&request).map_or_else(|refusal| refusal.code, |()| 200);
            assert_eq!(answered, code, "{uri} {version:?} {headers:?}");
        }
    }

    #[test]
    fn an_address_that_others_reach_is_closed_but_for_probes_and_metrics() {
        let (right, wrong) =
            (("authorization", "Bearer s3cret"), ("authorization", "Bearer s3cre"));
        for (listen, token, header, code) in [
            ("127.0.0.1:1", None, None, 200),
            ("127.0.0.1:1", Some("s3cret"), None, 200),
            ("[::1]:1", None, None, 200),
            ("0.0.0.0:1", None, None, 403),
            ("[::]:1", None, None, 403),
            ("10.0.0.1:1", None, Some(right), 403),
            ("0.0.0.0:1", Some("s3cret"), None, 401),
            ("0.0.0.0:1", Some("s3cret"), Some(wrong), 401),
            ("0.0.0.0:1", Some("s3cret"), Some(("authorization", "s3cret")), 401),
            ("0.0.0.0:1", Some("s3cret"), Some(right), 200),
        ] {
            let guard = guard(listen, &[], token);
            let mut headers = vec![("host", "10.0.0.1:9464")];
            headers.extend(header);
            for path in ["/status", "/snapshots", "/snapshots/1/stop", "/", "/metrics/"] {
                let request = request(path, Version::HTTP_11, &headers);
                let answered = guard.admit(&request).map_or_else(|refusal| refusal.code, |()| 200);
                assert_eq!(answered, code, "{listen} {token:?} {headers:?} {path}");
            }
            for path in ["/livez", "/readyz", "/readyz?standby", "/metrics"] {
                assert!(guard.admit(&request(path, Version::HTTP_11, &headers)).is_ok(), "{path}");
            }
        }
    }
}
