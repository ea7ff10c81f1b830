import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.time.Duration;
import java.util.Properties;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;

/**
 * A Kafka Streams application that computes exactly once: how many orders each user has placed, how many orders each hour has
 * seen, and what each hour has earned. It runs until its standard input ends: `OrderAnalytics ADDRESS STATE_DIRECTORY SUFFIX`.
 */
final class OrderAnalytics {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final Serde<String> TEXT = Serdes.String();
    private static final Serde<Long> NUMBER = Serdes.Long();

    public static void main(String[] arguments) throws Exception {
        String suffix = arguments[2];
        StreamsBuilder builder = new StreamsBuilder();
        orderCounts(builder, suffix);
        hourlyAnalytics(builder, suffix);
        KafkaStreams streams = new KafkaStreams(builder.build(), settings(arguments[0], arguments[1], suffix));
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            return StreamThreadExceptionResponse.REPLACE_THREAD;
        });
        streams.start();
        while (System.in.read() >= 0) {
            // Nothing is said; the end is all that counts.
        }
        streams.close(Duration.ofSeconds(30));
    }

    private static Properties settings(String bootstrap, String directory, String suffix) {
        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, "order-processor-" + suffix);
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, directory);
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        // Every update is told, so that each must be told once.
        settings.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, "0");
        settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, "1");
        // A killed process is missed after as short a time as Kafka allows.
        settings.put(StreamsConfig.mainConsumerPrefix("session.timeout.ms"), "6000");
        settings.put(StreamsConfig.mainConsumerPrefix("heartbeat.interval.ms"), "500");
        settings.put(StreamsConfig.consumerPrefix("auto.offset.reset"), "earliest");
        return settings;
    }

    /** Orders by user. */
    private static void orderCounts(StreamsBuilder builder, String suffix) {
        KStream<String, String> orders = builder.stream("orders-" + suffix, Consumed.with(TEXT, TEXT));
        orders.groupBy((key, order) -> read(order).get("userId").asText(), Grouped.with(TEXT, TEXT))
            .count()
            .toStream()
            .to("order-counts-" + suffix, Produced.with(TEXT, NUMBER));
    }

    /** Orders and revenue by hour. */
    private static void hourlyAnalytics(StreamsBuilder builder, String suffix) {
        KStream<String, String> events = builder.stream("order-events-" + suffix, Consumed.with(TEXT, TEXT));
        sumByHour(events.filter((key, event) -> is(event, "OrderCreated")), "order-counts-store", "order-analytics-" + suffix, false);
        sumByHour(events.filter((key, event) -> is(event, "PaymentProcessed")), "revenue-store", "revenue-analytics-" + suffix, true);
    }

    private static void sumByHour(KStream<String, String> events, String store, String target, boolean amounts) {
        events.map((key, event) -> {
                JsonNode fields = read(event);
                return KeyValue.pair(fields.get("timestamp").asText().substring(0, 13), amounts ? fields.get("data").get("amount").asLong() : 1L);
            })
            .groupByKey(Grouped.with(TEXT, NUMBER))
            .reduce(Long::sum, Materialized.as(store))
            .toStream()
            .to(target, Produced.with(TEXT, NUMBER));
    }

    private static boolean is(String event, String type) {
        return read(event).get("type").asText().equals(type);
    }

    private static JsonNode read(String text) {
        try {
            return JSON.readTree(text);
        } catch (IOException broken) {
            throw new UncheckedIOException(broken);
        }
    }

    private OrderAnalytics() {}
}
