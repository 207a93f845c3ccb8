//! The settings of a node, alone or one of a cluster.

use std::path::Path;
use std::time::Duration;

use crate::process::free_port;

/// Of a node's settings, what differs between nodes.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    /// From 1 on.
    pub(super) id: usize,
    /// Where clients come.
    pub(super) port: u16,
    /// Where each node's controller listens, this one's among them.
    pub(super) controllers: Vec<u16>,
    pub(super) relayed: Option<RelayedPort>,
    /// Where clients come that must log in, and may only do what they were given.
    pub(super) guarded: Option<u16>,
    /// How long the controller takes a silent broker for alive.
    pub(super) session: Duration,
}

/// A port for clients that come through a relay.
#[derive(Debug, Clone, Copy)]
pub struct RelayedPort {
    /// Where the node listens.
    pub port: u16,
    /// Where the relay does.
    pub advertised: u16,
}

/// Who comes without a login may do everything; `bridge` is known and may do nothing.
const GUARDED: &str = "\
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
sasl.enabled.mechanisms=PLAIN
listener.name.guarded.plain.sasl.jaas.config=\
org.apache.kafka.common.security.plain.PlainLoginModule required user_bridge=\"secret\";
";

impl Settings {
    /// One node, on free ports. Its session is short, because a node that comes back after a kill
    /// waits for the end of its old one: 9 s by default.
    pub(super) fn lone() -> Self {
        Self {
            id: 1,
            port: free_port(),
            controllers: vec![free_port()],
            relayed: None,
            guarded: None,
            session: Duration::from_secs(3),
        }
    }

    /// One node that nobody kills. On a busy machine it may be out of breath for longer than a
    /// short session, and while it is taken for dead no topic can be made.
    pub(super) fn unhurried() -> Self {
        Self { session: Duration::from_secs(30), ..Self::lone() }
    }

    /// One node with a second port, where clients must log in.
    pub(super) fn guarded() -> Self {
        Self { guarded: Some(free_port()), ..Self::lone() }
    }

    /// The nodes of a cluster, on free ports.
    pub(super) fn cluster(nodes: usize) -> Vec<Self> {
        let controllers: Vec<u16> = (0..nodes).map(|_| free_port()).collect();
        let node = |id| Self { id, controllers: controllers.clone(), ..Self::lone() };
        (1..=nodes).map(node).collect()
    }

    /// The text of `server.properties`. Of all that is kept, each node of a cluster holds a copy,
    /// and all but one must have what is acknowledged.
    pub(super) fn properties(&self, data: &Path) -> String {
        let Self { id, port, controllers, relayed, guarded, session } = self;
        let (nodes, data, session) = (controllers.len(), data.display(), session.as_millis());
        let in_sync = nodes.saturating_sub(1).max(1);
        let controller = controllers[id - 1];
        let numbered = controllers.iter().zip(1..);
        let voters: Vec<String> =
            numbered.map(|(port, id)| format!("{id}@127.0.0.1:{port}")).collect();
        let voters = voters.join(",");
        let mut listeners =
            format!("PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}");
        let mut advertised = format!("PLAINTEXT://127.0.0.1:{port}");
        if let Some(RelayedPort { port, advertised: relay }) = relayed {
            listeners += &format!(",RELAYED://127.0.0.1:{port}");
            advertised += &format!(",RELAYED://127.0.0.1:{relay}");
        }
        let mut rights = String::new();
        if let Some(port) = guarded {
            listeners += &format!(",GUARDED://127.0.0.1:{port}");
            advertised += &format!(",GUARDED://127.0.0.1:{port}");
            rights.push_str(GUARDED);
        }
        format!(
            "\
process.roles=broker,controller
node.id={id}
controller.quorum.voters={voters}
listeners={listeners}
advertised.listeners={advertised}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,RELAYED:PLAINTEXT,\
GUARDED:SASL_PLAINTEXT
log.dirs={data}
default.replication.factor={nodes}
min.insync.replicas={in_sync}
offsets.topic.replication.factor={nodes}
offsets.topic.num.partitions=1
transaction.state.log.replication.factor={nodes}
transaction.state.log.min.isr={in_sync}
transaction.state.log.num.partitions=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms={session}
broker.heartbeat.interval.ms=500
auto.create.topics.enable=false
log.index.size.max.bytes=1048576
{rights}"
        )
    }
}
