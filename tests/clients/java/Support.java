import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ThreadLocalRandom;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** What every program here shares: where the cluster is, names of this run's own, conditions to wait for. */
final class Support {
    private static final String RUN = Integer.toHexString(ThreadLocalRandom.current().nextInt());
    private static String bootstrap = System.getenv().getOrDefault("BOOTSTRAP", "127.0.0.1:9092");

    /** The body of a program. */
    interface Body {
        void run() throws Exception;
    }

    /** Runs the program: one line and exit status 0 when it held, the error and status 1 when not. */
    static void main(String what, String[] arguments, Body body) {
        if (arguments.length > 0) {
            bootstrap = arguments[0];
        }
        try {
            body.run();
        } catch (Throwable error) {
            error.printStackTrace();
            System.out.println("failed: " + what);
            System.exit(1);
        }
        System.out.println("ok: " + what);
        System.exit(0);
    }

    /** A topic or group name that no other run uses, so that the programs also pass on a cluster with a past. */
    static String named(String name) {
        return name + "-" + RUN;
    }

    static Admin admin() {
        return Admin.create(Map.of("bootstrap.servers", bootstrap));
    }

    static KafkaProducer<byte[], byte[]> producer(Map<String, ?> settings) {
        return new KafkaProducer<>(with(settings), new ByteArraySerializer(), new ByteArraySerializer());
    }

    static KafkaConsumer<byte[], byte[]> consumer(String group, Map<String, ?> settings) {
        Properties all = with(settings);
        all.put("group.id", group);
        all.putIfAbsent("auto.offset.reset", "earliest");
        all.putIfAbsent("enable.auto.commit", "false");
        return new KafkaConsumer<>(all, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    private static Properties with(Map<String, ?> settings) {
        Properties all = new Properties();
        all.put("bootstrap.servers", bootstrap);
        all.putAll(settings);
        return all;
    }

    static void createTopic(String topic, int partitions) throws Exception {
        try (Admin admin = admin()) {
            admin.createTopics(List.of(new NewTopic(topic, partitions, (short) -1))).all().get();
        }
    }

    /** Polls until `count` records have come. */
    static List<ConsumerRecord<byte[], byte[]>> read(KafkaConsumer<byte[], byte[]> consumer, int count) throws Exception {
        List<ConsumerRecord<byte[], byte[]>> records = new ArrayList<>();
        until(count + " records have come", () -> {
            consumer.poll(Duration.ofMillis(100)).forEach(records::add);
            return records.size() >= count;
        });
        return records;
    }

    static void until(String what, Callable<Boolean> condition) throws Exception {
        long deadline = System.nanoTime() + Duration.ofSeconds(60).toNanos();
        while (!condition.call()) {
            check(System.nanoTime() < deadline, "gave up after 60 s waiting until " + what);
            Thread.onSpinWait();
        }
    }

    static void check(boolean holds, String otherwise) {
        if (!holds) {
            throw new AssertionError(otherwise);
        }
    }

    static void equal(Object found, Object expected) {
        check(expected.equals(found), "expected " + expected + ", found " + found);
    }

    /** Expects the call to fail with an error of this class. */
    static void fails(Class<? extends Exception> expected, Callable<?> call) throws Exception {
        try {
            call.call();
        } catch (ExecutionException error) {
            check(expected.isInstance(error.getCause()), "expected " + expected + ", found " + error.getCause());
            return;
        }
        throw new AssertionError("expected " + expected + ", found success");
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    static String text(byte[] bytes) {
        return bytes == null ? null : new String(bytes, StandardCharsets.UTF_8);
    }

    static List<String> values(Collection<ConsumerRecord<byte[], byte[]>> records) {
        return records.stream().map(record -> text(record.value())).toList();
    }

    private Support() {}
}
