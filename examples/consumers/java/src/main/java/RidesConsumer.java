import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.errors.RebalanceInProgressException;
import org.apache.kafka.common.errors.WakeupException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * A consumer of the topic rides, to copy from: it keeps the latest state of every ride.
 *
 * <pre>KAFKA_BROKERS=localhost:9092 mvn -q compile exec:java [-Dexec.args=TOPIC]</pre>
 *
 * An event may come twice, and events of one key always come in order. So events are applied by key,
 * where once or twice makes no difference, and offsets are committed after that, never before. What
 * cannot be read stops the consumer: to skip it would be to lose it.
 *
 * <p>Not here: a database. The map stands for a service's own table.
 */
public final class RidesConsumer {
    private static final ObjectMapper JSON = new ObjectMapper();

    private final Map<Long, JsonNode> rides = new HashMap<>();

    public static void main(String[] args) throws Exception {
        String topic = args.length > 0 ? args[0] : "rides";
        var settings = new Properties();
        settings.put(ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG,
                System.getenv().getOrDefault("KAFKA_BROKERS", "localhost:9092"));
        settings.put(ConsumerConfig.GROUP_ID_CONFIG, "rides-consumer-java");
        settings.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
        settings.put(ConsumerConfig.ENABLE_AUTO_COMMIT_CONFIG, "false");

        var bytes = new ByteArrayDeserializer();
        try (var consumer = new KafkaConsumer<>(settings, bytes, bytes)) {
            // SIGTERM and Ctrl-C end poll() with a WakeupException; the hook waits for the rest.
            Thread main = Thread.currentThread();
            Runtime.getRuntime().addShutdownHook(new Thread(() -> {
                consumer.wakeup();
                try {
                    main.join(Duration.ofSeconds(10).toMillis());
                } catch (InterruptedException e) {
                    Thread.currentThread().interrupt();
                }
            }));
            consumer.subscribe(List.of(topic));
            new RidesConsumer().run(consumer);
        } catch (WakeupException e) {
            // Asked to stop.
        }
    }

    private void run(KafkaConsumer<byte[], byte[]> consumer) throws Exception {
        while (true) {
            var records = consumer.poll(Duration.ofSeconds(1));
            for (var record : records) {
                String place = record.topic() + "[" + record.partition() + "]@" + record.offset();
                try {
                    System.out.println(place + "  " + apply(record));
                } catch (Exception e) {
                    throw new IllegalStateException(place + ": " + e.getMessage(), e);
                }
            }
            if (!records.isEmpty()) {
                try {
                    consumer.commitSync();
                } catch (CommitFailedException | RebalanceInProgressException e) {
                    System.err.println("commit: " + e.getMessage() + "; the events come again");
                }
            }
        }
    }

    /** Applies one event to the rides, and returns what it was. */
    private String apply(ConsumerRecord<byte[], byte[]> record) throws Exception {
        long rideId = JSON.readTree(record.key()).required("ride_id").longValue();

        // The tombstone after a delete. It is there for compaction, which may have left nothing else.
        if (record.value() == null) {
            rides.remove(rideId);
            return "ride " + rideId + "  tombstone";
        }

        JsonNode event = JSON.readTree(record.value());
        String op = event.required("op").textValue();
        switch (op) {
            case "c", "u", "r" -> {
                JsonNode ride = event.required("after");
                rides.put(rideId, ride);
                // Decimals come as text, with all their digits: new BigDecimal(text) is exact.
                String total = ride.required("total").textValue();
                return "ride %d  %s, zone %d to %d%s".formatted(rideId,
                        ride.required("status").textValue(),
                        ride.required("pickup_zone_id").intValue(),
                        ride.required("dropoff_zone_id").intValue(),
                        total == null ? "" : ", $" + total);
            }
            case "d" -> {
                rides.remove(rideId);
                return "ride " + rideId + "  deleted";
            }
            default -> throw new IllegalArgumentException(
                    "an event with op \"" + op + "\", which is not known here");
        }
    }
}
