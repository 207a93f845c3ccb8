//! The bytes under the protocol: TCP, a Unix socket, or TLS over TCP.
//!
//! Both kinds of connection use it, so that replication and SQL agree on hosts, TLS and time
//! limits. `startup` and `tokio-postgres` do the protocol.

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ClientConfig;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::conninfo::{Address, ConnInfo, Host, SslMode};
use super::{Error, tls};

/// Idle time before the system probes whether the peer is still there. The system's default is two
/// hours, long after the server has ended the connection.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// Longest time that sent bytes may remain unacknowledged before the connection counts as dead.
const USER_TIMEOUT: Duration = Duration::from_secs(60);

/// Whether one attempt requests TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encryption {
    /// No TLS.
    Plain,
    /// Requested; plain if the server has none.
    IfOffered,
    /// Required.
    Required,
}

/// A connected stream and its security properties.
#[derive(Debug)]
pub struct Socket {
    stream: Stream,
    /// The channel binding value of this TLS connection, if its certificate defines one.
    pub(crate) end_point: Option<Vec<u8>>,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Socket {
    /// Whether a password may be sent in clear text: no one on the network can read it.
    pub(crate) fn is_private(&self) -> bool {
        !matches!(self.stream, Stream::Tcp(_))
    }

    /// Whether the bytes are encrypted.
    pub(crate) fn is_tls(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }
}

/// The attempts for `host`, in order; each later one only after the server refused the one before
/// it, as in libpq.
pub(crate) fn encryption_attempts(info: &ConnInfo, host: &Host) -> &'static [Encryption] {
    match (&host.address, info.ssl_mode) {
        (Address::Unix(_), _) | (_, SslMode::Disable) => &[Encryption::Plain],
        (_, SslMode::Allow) => &[Encryption::Plain, Encryption::Required],
        (_, SslMode::Prefer) => &[Encryption::IfOffered, Encryption::Plain],
        (_, SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull) => &[Encryption::Required],
    }
}

/// Connects to one host.
pub(crate) async fn connect(
    info: &ConnInfo,
    host: &Host,
    encryption: Encryption,
    config: &Arc<ClientConfig>,
) -> Result<Socket, Error> {
    let failed = |source| Error::Connect { address: host.to_string(), source };
    let tcp = match &host.address {
        Address::Unix(directory) => {
            let stream = unix(directory, host.port).await.map_err(failed)?;
            return Ok(Socket { stream: Stream::Unix(stream), end_point: None });
        }
        Address::Name(name) => TcpStream::connect((name.as_str(), host.port)).await,
        Address::Ip(ip, _) => TcpStream::connect((*ip, host.port)).await,
    };
    let mut tcp = tcp.map_err(failed)?;
    set_options(&tcp, info).map_err(failed)?;
    if encryption == Encryption::Plain {
        return Ok(Socket { stream: Stream::Tcp(tcp), end_point: None });
    }
    match (offers_tls(&mut tcp).await.map_err(failed)?, encryption) {
        (true, _) => secure(tcp, host, config).await,
        (false, Encryption::Required) => Err(Error::NoTls { address: host.to_string() }),
        (false, _) => Ok(Socket { stream: Stream::Tcp(tcp), end_point: None }),
    }
}

async fn unix(directory: &Path, port: u16) -> io::Result<UnixStream> {
    UnixStream::connect(directory.join(format!(".s.PGSQL.{port}"))).await
}

fn set_options(tcp: &TcpStream, info: &ConnInfo) -> io::Result<()> {
    // A status update is small and must not wait for more data.
    tcp.set_nodelay(true)?;
    if let Some(wanted) = info.keepalive {
        let mut keepalive = TcpKeepalive::new()
            .with_time(wanted.idle.unwrap_or(KEEPALIVE_IDLE))
            .with_interval(wanted.interval.unwrap_or(KEEPALIVE_INTERVAL));
        if let Some(count) = wanted.count {
            keepalive = keepalive.with_retries(count);
        }
        SockRef::from(tcp).set_tcp_keepalive(&keepalive)?;
    }
    let timeout = info.tcp_user_timeout.unwrap_or(USER_TIMEOUT);
    #[cfg(target_os = "linux")]
    rustix::net::sockopt::set_tcp_user_timeout(
        tcp,
        u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX),
    )?;
    #[cfg(not(target_os = "linux"))]
    let _ = timeout;
    Ok(())
}

/// Requests TLS: `S` is yes, `N` is no.
async fn offers_tls(tcp: &mut TcpStream) -> io::Result<bool> {
    let mut request = bytes::BytesMut::new();
    postgres_protocol::message::frontend::ssl_request(&mut request);
    tcp.write_all(&request).await?;
    let mut answer = [0];
    // Nothing beyond this byte may be read before TLS: an attacker on the network could have
    // injected it.
    tcp.read_exact(&mut answer).await?;
    match answer {
        [b'S'] => Ok(true),
        [b'N'] => Ok(false),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the response to the TLS request is neither yes nor no: this is not Postgres",
        )),
    }
}

async fn secure(tcp: TcpStream, host: &Host, config: &Arc<ClientConfig>) -> Result<Socket, Error> {
    let failed = |source| Error::Tls { address: host.to_string(), source };
    let name = match &host.address {
        Address::Name(name) | Address::Ip(_, Some(name)) => name.clone(),
        Address::Ip(ip, None) => IpAddr::to_string(ip),
        Address::Unix(directory) => directory.display().to_string(),
    };
    let name = tls::server_name(&name).map_err(failed)?;
    let stream = TlsConnector::from(Arc::clone(config))
        .connect(name, tcp)
        .await
        .map_err(|source| Error::TlsHandshake { address: host.to_string(), source })?;
    let chain = stream.get_ref().1.peer_certificates();
    let end_point = chain.and_then(|chain| tls::server_end_point(chain.first()?));
    Ok(Socket { stream: Stream::Tls(Box::new(stream)), end_point })
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Stream::Unix(stream) => Pin::new(stream).poll_flush(context),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
