//! What the broker alone can take: batches that rowcast made, sent again as they are.
//!
//! The client does nothing but write bytes that stand in memory, over one connection as rowcast has,
//! with a few requests under way so that the broker never waits for one. What it takes is then the
//! broker's ceiling for such records on this machine.
//!
//! Batches are read from the partition's first segment, where they stand as they came, but for the
//! offset and the leader's epoch, which the batch's checksum leaves out:
//! <https://kafka.apache.org/documentation/#recordbatch>. They belong to an idempotent producer, which
//! a new partition knows nothing of, and come in its order, so the broker takes them as the first time.

use std::collections::VecDeque;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;

/// As many as an idempotent Java client has under way.
const UNDER_WAY: usize = 5;

/// Offset and length, which the length does not count.
const HEAD_BYTES: usize = 12;

/// Sends the batches of a segment to the first partition of a topic.
pub(crate) fn run(broker: &str, topic: &str, segment: &Path) {
    let bytes = fs::read(segment).expect("read the batches");
    let mut connection = TcpStream::connect(broker).expect("connect");
    connection.set_nodelay(true).expect("an open socket");
    let mut under_way = VecDeque::new();
    for (number, batch) in (0..).zip(batches(&bytes)) {
        if under_way.len() == UNDER_WAY {
            answer(&mut connection, under_way.pop_front().expect("it is not empty"));
        }
        let batch = as_new(batch);
        connection.write_all(&request(topic, number, batch.len())).expect("send");
        connection.write_all(&batch).expect("send");
        under_way.push_back(number);
    }
    for number in under_way {
        answer(&mut connection, number);
    }
}

/// The batches that stand in a segment.
fn batches(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = bytes.get(8..HEAD_BYTES)?.try_into().expect("four bytes");
        let length = usize::try_from(u32::from_be_bytes(length)).expect("it fits");
        let (batch, rest) = bytes.split_at_checked(HEAD_BYTES + length)?;
        bytes = rest;
        (length > 0).then_some(batch)
    })
}

/// The batch as a producer sends it: without an offset and an epoch of the leader.
fn as_new(batch: &[u8]) -> Vec<u8> {
    let mut batch = batch.to_vec();
    batch[..8].fill(0);
    batch[HEAD_BYTES..HEAD_BYTES + 4].fill(0xff);
    batch
}

/// A Produce request of version 7 up to its batch, of so many bytes.
fn request(topic: &str, number: i32, batch: usize) -> Vec<u8> {
    let length = |bytes: usize| i32::try_from(bytes).expect("short").to_be_bytes();
    let mut body = Vec::new();
    // Produce, version, the request's number, no client id, no transactional id, acks of all, 30 s.
    body.extend([0, 0, 0, 7]);
    body.extend(number.to_be_bytes());
    body.extend([0xff; 6]);
    body.extend(30_000_i32.to_be_bytes());
    // One topic with one partition.
    body.extend(1_i32.to_be_bytes());
    body.extend(u16::try_from(topic.len()).expect("short").to_be_bytes());
    body.extend(topic.as_bytes());
    body.extend(1_i32.to_be_bytes());
    body.extend(0_i32.to_be_bytes());
    body.extend(length(batch));
    [&length(body.len() + batch)[..], &body].concat()
}

/// Reads the answer to a request, which must be that the batch is there.
fn answer(connection: &mut TcpStream, number: i32) {
    let mut length = [0; 4];
    connection.read_exact(&mut length).expect("an answer");
    let length = usize::try_from(u32::from_be_bytes(length)).expect("it fits");
    let mut body = vec![0; length];
    connection.read_exact(&mut body).expect("an answer");
    assert_eq!(body[..4], number.to_be_bytes(), "answers come in order");
    // A number of topics, the name, a number of partitions, the partition.
    let name = usize::from(u16::from_be_bytes([body[8], body[9]]));
    let code = i16::from_be_bytes([body[18 + name], body[19 + name]]);
    assert_eq!(code, 0, "the broker takes the batch");
}
