//! A producer with nothing of rowcast around it: what the cluster itself makes everybody wait for.
//!
//! It has the properties that rowcast gives its own, and writes a record to each of three partitions
//! again and again; under exactly-once each three are a transaction. A record's time is when it was
//! first offered, so a watcher sees for how long it was held up, as with rowcast's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rowcast::config::{Config, Delivery};
use rowcast::kafka::client_config;

use crate::check::Mode;
use crate::watch::now;

pub(crate) const PARTITIONS: i32 = 3;

/// Time between two rounds: as often as the load commits.
const PACE: Duration = Duration::from_millis(30);

/// Longest wait for one call.
const CALL: Duration = Duration::from_secs(1);

/// The producer, on a thread of its own.
#[derive(Debug)]
pub(crate) struct Bare {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Bare {
    /// Starts to write to a topic that exists.
    pub(crate) fn start(mode: Mode, name: &str, brokers: &str, topic: &str) -> Self {
        let mut config = Config { name: Some(format!("bare.{name}")), ..Config::default() };
        config.kafka.brokers = Some(brokers.to_owned());
        if mode == Mode::ExactlyOnce {
            config.delivery = Delivery::ExactlyOnce;
        }
        let settings = config.resolve("bare").expect("a configuration");
        let mut properties = client_config(&settings).expect("properties");
        // Without the flight that hurries each batch for rowcast, one would wait for its linger.
        properties.set("linger.ms", "0");
        let producer: BaseProducer = properties.create().expect("a producer");
        let stop = Arc::<AtomicBool>::default();
        let (told, topic) = (Arc::clone(&stop), topic.to_owned());
        let thread = std::thread::spawn(move || {
            let transactional = mode == Mode::ExactlyOnce;
            if transactional {
                insist(|| producer.init_transactions(CALL));
            }
            while !told.load(Ordering::Relaxed) {
                write(&producer, &topic, transactional);
                producer.poll(PACE);
            }
            insist(|| producer.flush(CALL));
        });
        Self { stop, thread }
    }

    /// Ends, once all is acknowledged.
    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }
}

fn write(producer: &BaseProducer, topic: &str, transactional: bool) {
    let now = i64::try_from(now()).expect("a date of this age");
    loop {
        if transactional {
            producer.begin_transaction().expect("begin a transaction");
        }
        for partition in 0..PARTITIONS {
            let record = BaseRecord::<(), str>::to(topic).payload("bare").timestamp(now);
            producer.send(record.partition(partition)).expect("there is room");
        }
        if !transactional || committed(producer) {
            return;
        }
        insist(|| producer.abort_transaction(CALL));
    }
}

/// Whether the transaction is committed; else it must be aborted, and tried again.
fn committed(producer: &BaseProducer) -> bool {
    loop {
        match producer.commit_transaction(CALL) {
            Ok(()) => return true,
            Err(error) if will_pass(&error) => {}
            Err(KafkaError::Transaction(error)) if error.txn_requires_abort() => return false,
            Err(error) => panic!("commit: {error}"),
        }
    }
}

/// Calls until it works.
fn insist(mut call: impl FnMut() -> Result<(), KafkaError>) {
    while let Err(error) = call() {
        assert!(will_pass(&error), "{error}");
    }
}

fn will_pass(error: &KafkaError) -> bool {
    match error {
        KafkaError::Flush(_) => true,
        KafkaError::Transaction(error) => error.is_retriable(),
        _ => false,
    }
}
