//! A TCP relay that a test stands in the line, to break the line as networks do.
//!
//! A cut connection is the kind fault: both ends are told. Here are the others as well: bytes that
//! arrive nowhere while the connection seems to stand, bytes that come late, and an end that was
//! said in one direction only.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What becomes of what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// It arrives.
    Open,
    /// It arrives, but later.
    Slow(Duration),
    /// It is taken and arrives nowhere; nobody is told.
    BlackHole,
    /// What the server sends arrives; what it is sent arrives nowhere.
    Unheard,
    /// The connections are closed at both ends, and new ones at once.
    Cut,
    /// The server's end is said to the client, while the other direction stays open.
    HalfClosed,
}

/// A relay to one address. It ends when dropped, and its connections with it.
#[derive(Debug)]
pub struct Relay {
    port: u16,
    server: u16,
    line: watch::Sender<Line>,
    accepted: Arc<AtomicUsize>,
    swallowed: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Relay {
    /// Listens on a free port of 127.0.0.1 and passes all on to `port` there.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let own = listener.local_addr().expect("it is bound").port();
        let line = watch::Sender::new(Line::Open);
        let accepted = Arc::<AtomicUsize>::default();
        let swallowed = Arc::<AtomicUsize>::default();
        let mut tasks = JoinSet::new();
        let server = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let counts = (Arc::clone(&accepted), Arc::clone(&swallowed));
        tasks.spawn(accept(listener, server, line.clone(), counts));
        Self { port: own, server: port, line, accepted, swallowed, _tasks: tasks }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A URL of the server, by this way.
    pub fn url(&self, url: &str) -> String {
        url.replace(&format!(":{}/", self.server), &format!(":{}/", self.port))
    }

    /// Changes the line, for connections that stand and for new ones. Connections that were cut or
    /// half closed do not come back, and bytes that were lost stay lost: a connection that has seen
    /// a black hole passes nothing any more.
    pub fn set(&self, line: Line) {
        self.line.send_replace(line);
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Acquire)
    }

    /// Bytes that went into a black hole so far.
    pub fn swallowed(&self) -> usize {
        self.swallowed.load(Ordering::Acquire)
    }
}

async fn accept(
    listener: TcpListener,
    server: SocketAddr,
    line: watch::Sender<Line>,
    (accepted, swallowed): (Arc<AtomicUsize>, Arc<AtomicUsize>),
) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        accepted.fetch_add(1, Ordering::AcqRel);
        let (to_server, to_client) = (line.subscribe(), line.subscribe());
        let swallowed = Arc::clone(&swallowed);
        connections.spawn(async move {
            if *to_server.borrow() == Line::Cut {
                return;
            }
            let Ok(server) = TcpStream::connect(server).await else { return };
            let (client_read, client_write) = client.into_split();
            let (server_read, server_write) = server.into_split();
            // Either end's end is both's, so that a cut is felt by both.
            tokio::select! {
                () = pass(client_read, server_write, to_server, false, &swallowed) => {}
                () = pass(server_read, client_write, to_client, true, &swallowed) => {}
            }
        });
    }
}

/// Passes bytes on in one direction until the connection ends.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut line: watch::Receiver<Line>,
    is_to_client: bool,
    swallowed: &AtomicUsize,
) {
    let mut buffer = vec![0; 64 * 1024];
    let mut lost = false;
    loop {
        let state = *line.borrow_and_update();
        match state {
            Line::Cut => return,
            Line::HalfClosed if is_to_client => {
                // Nothing to be done about a peer that is gone already.
                drop(to.shutdown().await);
                return std::future::pending().await;
            }
            Line::Open | Line::Slow(_) | Line::BlackHole | Line::Unheard | Line::HalfClosed => {}
        }
        let count = tokio::select! {
            // What is sent after the line was changed is for the new one.
            biased;
            changed = line.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
            read = from.read(&mut buffer) => read.unwrap_or(0),
        };
        lost |= state == Line::BlackHole || (state == Line::Unheard && !is_to_client);
        if lost {
            swallowed.fetch_add(count, Ordering::AcqRel);
        }
        match (count, state) {
            // What is lost includes the word that it is over.
            _ if lost && count == 0 => return std::future::pending().await,
            (0, _) => return,
            _ if lost => continue,
            (_, Line::Slow(delay)) => tokio::time::sleep(delay).await,
            _ => {}
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
