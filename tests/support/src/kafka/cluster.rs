//! Three nodes that hold copies of everything, so that each may fail.
//!
//! Topics have three replicas, of which two must have what is acknowledged. Any one node can be
//! killed and nothing stops for longer than it takes to elect others.

use std::path::Path;
use std::time::{Duration, Instant};

use rdkafka::admin::{NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::settings::Settings;
use super::{KafkaNode, PATIENCE, SMALL, START_PATIENCE, client_config, create_topic, jars};
use crate::process::pause;

/// How many nodes there are.
pub const NODES: usize = 3;

/// A running cluster.
#[derive(Debug)]
pub struct KafkaCluster {
    nodes: Vec<KafkaNode>,
}

/// What a node is to the others at some time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Roles {
    /// It leads the quorum of controllers.
    pub controls: bool,
    /// It coordinates transactions.
    pub coordinates: bool,
}

impl KafkaCluster {
    /// Starts the nodes and waits until each serves and knows the others.
    ///
    /// # Errors
    ///
    /// As for [`KafkaNode::shared`].
    pub fn start() -> Result<Self, &'static str> {
        let jars = jars()?;
        for _ in 0..3 {
            let prepared = prepare(jars);
            let mut cluster = Self { nodes: prepared };
            cluster.nodes.iter_mut().for_each(KafkaNode::launch);
            match cluster.wait_until_ready() {
                Ok(()) => return Ok(cluster),
                Err(reason) if reason.contains("Address already in use") => {}
                Err(reason) => panic!("start Kafka: {reason}"),
            }
        }
        panic!("start Kafka: three times a free port was taken before its node had it");
    }

    fn wait_until_ready(&mut self) -> Result<(), String> {
        self.nodes.iter_mut().try_for_each(KafkaNode::wait_until_ready)?;
        self.wait_until_whole(START_PATIENCE);
        Ok(())
    }

    /// Waits until all nodes take part, and have all that they should have of every partition: only
    /// then may the next be killed.
    ///
    /// # Panics
    ///
    /// When they don't after `deadline`.
    pub fn wait_until_whole(&self, deadline: Duration) {
        let client: BaseConsumer = client_config(&self.brokers()).create().expect("a client");
        let started = Instant::now();
        loop {
            let metadata = client.fetch_metadata(None, Duration::from_millis(500));
            let whole = metadata.is_ok_and(|metadata| {
                let mut partitions =
                    metadata.topics().iter().flat_map(rdkafka::metadata::MetadataTopic::partitions);
                metadata.brokers().len() == NODES
                    && partitions.all(|partition| partition.isr().len() == NODES)
            });
            if whole {
                return;
            }
            let logs: Vec<String> = self.nodes.iter().map(|node| node.process.log_tail()).collect();
            assert!(started.elapsed() < deadline, "not whole; logs:\n{}", logs.join("\n\n"));
            pause();
        }
    }

    /// Bootstrap brokers, all of them.
    pub fn brokers(&self) -> String {
        self.nodes.iter().map(KafkaNode::brokers).collect::<Vec<_>>().join(",")
    }

    /// Makes a topic, with a copy on each node.
    pub async fn create_topic(&self, name: &str, partitions: i32) {
        let replicas = TopicReplication::Fixed(i32::try_from(NODES).expect("few nodes"));
        create_topic(&self.brokers(), &NewTopic::new(name, partitions, replicas)).await;
    }

    /// The folders of the nodes: settings, data, log.
    pub fn dirs(&self) -> impl Iterator<Item = &Path> {
        self.nodes.iter().map(KafkaNode::dir)
    }

    /// SIGKILL to a node, counted from 0.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node].kill();
    }

    /// Starts a node that was killed, and waits until it serves.
    pub fn start_again(&mut self, node: usize) {
        self.nodes[node].start_again();
    }

    /// SIGSTOP to a node: its host keeps its connections and answers nothing.
    pub fn freeze(&self, node: usize) {
        self.nodes[node].freeze();
    }

    /// Lets a node that was frozen go on.
    pub fn thaw(&self, node: usize) {
        self.nodes[node].thaw();
    }

    /// What the nodes are now, as far as a client and their logs tell.
    pub fn roles(&self) -> [Roles; NODES] {
        let mut roles = [Roles::default(); NODES];
        let active: Vec<Option<u64>> =
            self.nodes.iter().map(|node| last_active_epoch(&node.log())).collect();
        if let Some(newest) = active.iter().max().filter(|newest| newest.is_some()) {
            for (node, epoch) in active.iter().enumerate() {
                roles[node].controls = epoch == newest;
            }
        }
        if let Some(leader) = self.leader("__transaction_state", 0) {
            roles[leader].coordinates = true;
        }
        roles
    }

    /// The node, counted from 0, that leads a partition.
    pub fn leader(&self, topic: &str, partition: usize) -> Option<usize> {
        let client: BaseConsumer = client_config(&self.brokers()).create().expect("a client");
        let metadata = client.fetch_metadata(None, PATIENCE).ok()?;
        let found = metadata.topics().iter().find(|found| found.name() == topic)?;
        let id = found.partitions().get(partition)?.leader();
        usize::try_from(id).ok()?.checked_sub(1)
    }
}

fn prepare(jars: &'static Path) -> Vec<KafkaNode> {
    // Three JVMs, one a node, which don't wait for each other.
    std::thread::scope(|scope| {
        let settings = Settings::cluster(NODES).into_iter();
        let formatting: Vec<_> = settings
            .map(|settings| scope.spawn(|| KafkaNode::prepared(jars, SMALL, settings)))
            .collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, KafkaNode>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        formatting.into_iter().map(join).collect()
    })
}

/// The highest epoch in which a node took the lead of the controllers, as it logs it: `becoming the
/// active controller at epoch 3`.
fn last_active_epoch(log: &str) -> Option<u64> {
    let lines = log.lines().filter(|line| line.to_lowercase().contains("becoming the active"));
    let epoch = |line: &str| {
        let (_, after) = line.split_once("epoch ")?;
        after.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    lines.filter_map(epoch).max()
}
