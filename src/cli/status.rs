//! `rowcast status`: asks a running bridge how it is; the health check of its container.
//!
//! The bridge is our own, on this host or near it, so one plain HTTP/1.0 request is enough: the
//! answer ends where the connection does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use clap::Args;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{CliError, GlobalArgs, SettingArgs};

/// Ask a running bridge how it is; exit code 0 when it is ready
#[derive(Debug, Args)]
#[command(after_help = "\
Asks the address in admin.listen, unless told otherwise. As a container's health check:
  HEALTHCHECK CMD [\"rowcast\", \"status\"]")]
pub(super) struct StatusArgs {
    /// The bridge's admin endpoint [default: admin.listen]
    #[arg(long, value_name = "IP:PORT")]
    address: Option<SocketAddr>,
    /// Longest wait for the answer
    #[arg(long, default_value = "3s", value_name = "DURATION", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

pub(super) async fn run(args: StatusArgs, global: &GlobalArgs) -> Result<(), CliError> {
    let address = match args.address {
        Some(address) => address,
        None => {
            let admin = global.load(&SettingArgs::default())?.config.admin;
            if !admin.enabled {
                return Err(CliError::AdminDisabled);
            }
            reachable(admin.listen)
        }
    };
    let ready = answer(address, "/readyz", args.timeout).await?;
    if ready.code != 200 {
        return Err(CliError::NotReady { address, reason: ready.body.trim().to_owned() });
    }
    let status = answer(address, "/status", args.timeout).await?;
    super::print(&format!("{}\n", status.body.trim_end()))
}

/// Where a server that listens here can be asked from this host.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

struct Answer {
    code: u16,
    body: String,
}

async fn answer(address: SocketAddr, path: &str, timeout: Duration) -> Result<Answer, CliError> {
    let failed = |reason: String| CliError::Status { address, reason };
    match tokio::time::timeout(timeout, request(address, path)).await {
        Ok(Ok(text)) => {
            parse(&text).ok_or_else(|| failed("the answer is not an HTTP response".to_owned()))
        }
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed(format!("no answer within {}", humantime::format_duration(timeout)))),
    }
}

async fn request(address: SocketAddr, path: &str) -> std::io::Result<String> {
    /// More than any status of ours, and little enough for whatever else may listen there.
    const MAX_ANSWER_BYTES: u64 = 1 << 20;
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
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
}
