//! Sends requests to a running bridge's admin endpoint.
//!
//! The bridge runs on this host or near it, so plain HTTP/1.0 is enough: the response ends when the
//! connection closes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use clap::Args;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{CliError, GlobalArgs, SettingArgs};
use crate::config::{Admin, Secret};

/// Flags that select the bridge.
#[derive(Debug, Clone, Args)]
pub(super) struct AskArgs {
    /// The bridge's admin endpoint [default: admin.listen]
    #[arg(long, value_name = "IP:PORT")]
    address: Option<SocketAddr>,
    /// Longest wait for a response
    #[arg(long, default_value = "3s", value_name = "DURATION", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// A running bridge.
pub(super) struct Bridge {
    pub(super) address: SocketAddr,
    timeout: Duration,
    token: Option<Secret>,
}

/// Its response.
pub(super) struct Answer {
    pub(super) code: u16,
    pub(super) body: String,
}

impl AskArgs {
    /// The bridge that these flags name, or else the configuration.
    pub(super) fn bridge(&self, global: &GlobalArgs) -> Result<Bridge, CliError> {
        let (address, admin) = match self.address {
            // The request works without a valid configuration file.
            Some(address) => (address, global.load(&SettingArgs::default()).ok()),
            None => {
                let loaded = global.load(&SettingArgs::default())?;
                let Admin { enabled, listen, .. } = loaded.config.admin;
                if !enabled {
                    return Err(CliError::AdminDisabled);
                }
                (reachable(listen), Some(loaded))
            }
        };
        let file = admin.and_then(|loaded| loaded.config.admin.token_file);
        let token = file.as_deref().map(read_token).transpose()?;
        Ok(Bridge { address, timeout: self.timeout, token })
    }
}

fn read_token(file: &Path) -> Result<Secret, CliError> {
    let text = std::fs::read_to_string(file)
        .map_err(|source| CliError::Token { file: file.to_owned(), source })?;
    Ok(Secret::from(text.lines().next().unwrap_or_default().to_owned()))
}

impl Bridge {
    /// Sends a GET request.
    pub(super) async fn get(&self, path: &str) -> Result<Answer, CliError> {
        self.ask("GET", path, "").await
    }

    /// Sends a POST request.
    pub(super) async fn post(&self, path: &str, body: &str) -> Result<Answer, CliError> {
        self.ask("POST", path, body).await
    }

    async fn ask(&self, method: &str, path: &str, body: &str) -> Result<Answer, CliError> {
        let failed = |reason: String| CliError::Status { address: self.address, reason };
        let request = self.request(method, path, body);
        match tokio::time::timeout(self.timeout, exchange(self.address, &request)).await {
            Ok(Ok(text)) => {
                parse(&text).ok_or_else(|| failed("the answer is not an HTTP response".to_owned()))
            }
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => {
                let limit = humantime::format_duration(self.timeout);
                Err(failed(format!("no answer within {limit}")))
            }
        }
    }

    fn request(&self, method: &str, path: &str, body: &str) -> String {
        let mut head = format!("{method} {path} HTTP/1.0\r\nHost: {}\r\n", self.address);
        if method == "POST" {
            head +=
                &format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
        }
        if let Some(token) = &self.token {
            head += &format!("Authorization: Bearer {}\r\n", token.expose());
        }
        format!("{head}\r\n{body}")
    }
}

/// The address at which this host reaches a server that listens on `listen`.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

async fn exchange(address: SocketAddr, request: &str) -> std::io::Result<String> {
    /// More than the bridge ever sends, and a bound for any other program that may listen there.
    const MAX_ANSWER_BYTES: u64 = 8 << 20;
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn parse(answer: &str) -> Option<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let code = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { code, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_and_anything_else_is_not() {
        let answer = parse("HTTP/1.0 503 Service Unavailable\r\nA: b\r\n\r\nstarting\n").unwrap();
        assert_eq!((answer.code, answer.body.as_str()), (503, "starting\n"));
        for text in ["", "SSH-2.0-x\r\n\r\n", "HTTP/1.1\r\n\r\n", "HTTP/1.1 abc\r\n\r\n"] {
            assert!(parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_bridge_that_listens_everywhere_is_asked_here() {
        let asked = |listen: &str| reachable(listen.parse().unwrap()).to_string();
        assert_eq!(asked("0.0.0.0:80"), "127.0.0.1:80");
        assert_eq!(asked("[::]:80"), "[::1]:80");
        assert_eq!(asked("10.0.0.1:80"), "10.0.0.1:80");
    }

    #[test]
    fn the_token_goes_with_every_request() {
        let token = Some(Secret::from("s3cret".to_owned()));
        let address = "127.0.0.1:80".parse().unwrap();
        let bridge = Bridge { address, timeout: Duration::ZERO, token };
        let get = bridge.request("GET", "/status", "");
        assert!(get.contains("\r\nAuthorization: Bearer s3cret\r\n"), "{get}");
        let post = bridge.request("POST", "/snapshots", "{}");
        assert!(post.contains("\r\nAuthorization: Bearer s3cret\r\n"), "{post}");
        assert!(
            post.ends_with("\r\n\r\n{}") && post.contains("\r\nContent-Length: 2\r\n"),
            "{post}"
        );
    }
}
