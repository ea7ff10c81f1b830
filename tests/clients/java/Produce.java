import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Future;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.record.TimestampType;

/** Every codec and every acknowledgement; keys, headers, tombstones and timestamps come back as they were sent. */
final class Produce {
    private static final int COUNT = 200;
    private static final long START = 1_700_000_000_000L;

    public static void main(String[] arguments) {
        Support.main("java produce: codecs, acks, keys, headers, tombstones", arguments, () -> {
            for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
                for (String acks : List.of("0", "1", "all")) {
                    roundTrip(codec, acks);
                }
            }
            tombstones();
            tooLarge();
        });
    }

    private static void roundTrip(String codec, String acks) throws Exception {
        String topic = Support.named(codec + "-" + acks);
        Support.createTopic(topic, 1);
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        Map<String, ?> settings = Map.of("compression.type", codec, "acks", acks, "enable.idempotence", "false", "linger.ms", "20");
        try (var producer = Support.producer(settings)) {
            for (int number = 0; number < COUNT; number++) {
                var record = new ProducerRecord<>(topic, 0, START + number, Support.bytes("key"), value(codec, number));
                record.headers().add("codec", Support.bytes(codec)).add("twice", Support.bytes("a"));
                record.headers().add("twice", Support.bytes("b")).add("nothing", null);
                sent.add(producer.send(record));
            }
        }
        if (!acks.equals("0")) {
            for (int number = 0; number < COUNT; number++) {
                Support.equal(sent.get(number).get().offset(), (long) number);
            }
        }
        try (var consumer = Support.consumer(Support.named("readers"), Map.of())) {
            consumer.subscribe(List.of(topic));
            List<ConsumerRecord<byte[], byte[]>> records = Support.read(consumer, COUNT);
            for (int number = 0; number < COUNT; number++) {
                var record = records.get(number);
                Support.equal(record.offset(), (long) number);
                Support.equal(Support.text(record.key()), "key");
                Support.equal(Support.text(record.value()), Support.text(value(codec, number)));
                Support.equal(record.timestamp(), START + number);
                Support.equal(record.timestampType(), TimestampType.CREATE_TIME);
                var headers = new ArrayList<String>();
                record.headers().forEach(header -> headers.add(header.key() + "=" + Support.text(header.value())));
                Support.equal(headers, List.of("codec=" + codec, "twice=a", "twice=b", "nothing=null"));
            }
        }
        System.out.println(codec + " with acks=" + acks + ": " + COUNT + " records");
    }

    private static byte[] value(String codec, int number) {
        return Support.bytes((codec + " " + number + " ").repeat(20));
    }

    private static void tombstones() throws Exception {
        String topic = Support.named("tombstones");
        Support.createTopic(topic, 1);
        try (var producer = Support.producer(Map.of())) {
            producer.send(new ProducerRecord<>(topic, Support.bytes("k"), Support.bytes("v"))).get();
            producer.send(new ProducerRecord<>(topic, Support.bytes("k"), null)).get();
            producer.send(new ProducerRecord<>(topic, null, new byte[0])).get();
        }
        try (var consumer = Support.consumer(Support.named("readers"), Map.of())) {
            consumer.subscribe(List.of(topic));
            var records = Support.read(consumer, 3);
            Support.check(records.get(1).value() == null, "the tombstone has a value");
            Support.check(records.get(2).key() == null, "the absent key is there");
            Support.equal(records.get(2).value().length, 0);
        }
    }

    private static void tooLarge() throws Exception {
        String topic = Support.named("too-large");
        Support.createTopic(topic, 1);
        try (var producer = Support.producer(Map.of("max.request.size", "4000000", "buffer.memory", "8000000"))) {
            Support.fails(RecordTooLargeException.class, producer.send(new ProducerRecord<>(topic, new byte[2_000_000]))::get);
            Support.equal(producer.send(new ProducerRecord<>(topic, new byte[10])).get().offset(), 0L);
        }
    }

    private Produce() {}
}
