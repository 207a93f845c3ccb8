//! Which addresses of the brokers can be reached from here: those that are configured, and those that
//! the brokers advertise.
//!
//! A client asks a configured address once, and then goes to the addresses that the brokers name. A
//! broker in a container names one that only containers know, and nothing in the client's errors says
//! so; so each is tried here on its own.

use std::io;
use std::time::Duration;

use tokio::net::TcpStream;

/// Longest wait for an address.
const CONNECT: Duration = Duration::from_secs(3);

/// The port of a broker whose address has none.
const PORT: &str = "9092";

/// An address, and why it can't be connected to, if so.
#[derive(Debug)]
pub struct Address {
    /// `host:port`.
    pub name: String,
    /// What the system says.
    pub failure: Option<io::Error>,
}

/// Tries each address, all at once.
pub async fn connect(names: impl IntoIterator<Item = String>) -> Vec<Address> {
    let tries = names.into_iter().map(|name| tokio::spawn(try_one(name)));
    let mut tried = Vec::new();
    for one in tries.collect::<Vec<_>>() {
        tried.extend(one.await);
    }
    tried
}

async fn try_one(name: String) -> Address {
    let connected = tokio::time::timeout(CONNECT, TcpStream::connect(&name)).await;
    let failure = match connected {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(error),
        Err(_) => {
            let text = format!("no answer within {} s", CONNECT.as_secs());
            Some(io::Error::new(io::ErrorKind::TimedOut, text))
        }
    };
    Address { name, failure }
}

/// The configured addresses.
#[must_use]
pub fn configured(brokers: &str) -> Vec<String> {
    let addresses = brokers.split(',').map(str::trim).filter(|address| !address.is_empty());
    addresses.map(with_port).collect()
}

/// An address without what librdkafka allows before it, and with a port.
fn with_port(address: &str) -> String {
    let address = address.split_once("://").map_or(address, |(_, address)| address);
    let after_host = address.rsplit_once(']').map_or(address, |(_, after)| after);
    if after_host.contains(':') { address.to_owned() } else { format!("{address}:{PORT}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_configured_address_has_a_port() {
        let brokers = "a, b:9093,ssl://c:1 ,[::1],[::1]:9, SASL_SSL://d";
        let addresses = ["a:9092", "b:9093", "c:1", "[::1]:9092", "[::1]:9", "d:9092"];
        assert_eq!(configured(brokers), addresses);
    }
}
