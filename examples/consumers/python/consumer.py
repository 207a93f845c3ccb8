"""A consumer of the topic rides, to copy from: it keeps the latest state of every ride.

    KAFKA_BROKERS=localhost:9092 python consumer.py [TOPIC]

An event may come twice, and events of one key always come in order. So events are applied by key,
where once or twice makes no difference, and offsets are committed after that, never before. What
cannot be read stops the consumer: to skip it would be to lose it.

Not here: a database. The dict stands for a service's own table.
"""

import json
import os
import signal
import sys

from confluent_kafka import Consumer, KafkaException


def main() -> None:
    topic = sys.argv[1] if len(sys.argv) > 1 else "rides"
    consumer = Consumer(
        {
            "bootstrap.servers": os.environ.get("KAFKA_BROKERS", "localhost:9092"),
            "group.id": "rides-consumer-python",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([topic])
    rides: dict[int, dict] = {}
    # SIGTERM leaves the group as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while True:
            consume_batch(consumer, rides)
    except KeyboardInterrupt:
        pass
    finally:
        consumer.close()


def consume_batch(consumer: Consumer, rides: dict[int, dict]) -> None:
    """Applies what has come, then commits it in one request."""
    applied = 0
    for message in consumer.consume(num_messages=500, timeout=0.1):
        if error := message.error():
            if error.fatal():
                raise KafkaException(error)
            # A broker that is away, a topic that is not there yet: the client tries again.
            print(error, file=sys.stderr)
            continue
        place = f"{message.topic()}[{message.partition()}]@{message.offset()}"
        try:
            print(f"{place}  {apply(message.key(), message.value(), rides)}", flush=True)
        except (KeyError, TypeError, ValueError) as error:
            raise SystemExit(f"{place}: {type(error).__name__}: {error}") from error
        applied += 1
    if applied:
        try:
            consumer.commit(asynchronous=False)
        except KafkaException as error:
            print(f"commit: {error}; the events come again", file=sys.stderr)


def apply(key: bytes, value: bytes | None, rides: dict[int, dict]) -> str:
    """Applies one event to the rides, and returns what it was."""
    ride_id = json.loads(key)["ride_id"]

    # The tombstone after a delete. It is there for compaction, which may have left nothing else.
    if value is None:
        rides.pop(ride_id, None)
        return f"ride {ride_id}  tombstone"

    event = json.loads(value)
    match event["op"]:
        case "c" | "u" | "r":
            ride = rides[ride_id] = event["after"]
            # Decimals come as text, with all their digits: Decimal(ride["total"]) is exact.
            total = f", ${ride['total']}" if ride["total"] is not None else ""
            zones = f"zone {ride['pickup_zone_id']} to {ride['dropoff_zone_id']}"
            return f"ride {ride_id}  {ride['status']}, {zones}{total}"
        case "d":
            rides.pop(ride_id, None)
            return f"ride {ride_id}  deleted"
        case op:
            raise ValueError(f"an event with op {op!r}, which is not known here")


if __name__ == "__main__":
    main()
