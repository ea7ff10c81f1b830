import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Future;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;

/** The idempotent producer, Java's default, stores each record once and in order with five requests in flight. */
final class Idempotent {
    private static final int COUNT = 5000;

    public static void main(String[] arguments) {
        Support.main("java idempotent producer: once and in order", arguments, () -> {
            String topic = Support.named("once");
            Support.createTopic(topic, 1);
            List<String> expected = new ArrayList<>();
            for (int session = 0; session < 2; session++) {
                send(topic, session, expected);
            }
            try (var consumer = Support.consumer(Support.named("readers"), Map.of())) {
                consumer.subscribe(List.of(topic));
                Support.equal(Support.values(Support.read(consumer, expected.size())), expected);
            }
        });
    }

    private static void send(String topic, int session, List<String> expected) throws Exception {
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        Map<String, ?> settings = Map.of("enable.idempotence", "true", "batch.size", "1000", "max.in.flight.requests.per.connection", "5");
        try (var producer = Support.producer(settings)) {
            for (int number = 0; number < COUNT; number++) {
                String value = session + "-" + number;
                sent.add(producer.send(new ProducerRecord<>(topic, Support.bytes(value))));
                expected.add(value);
            }
        }
        for (int number = 0; number < COUNT; number++) {
            Support.equal(sent.get(number).get().offset(), (long) session * COUNT + number);
        }
    }

    private Idempotent() {}
}
