"""The idempotent producer stores each record once and in order, with several requests in flight and new sessions."""

from support import Deliveries, consumer, create_topic, main, named, poll, producer, until

COUNT = 5000


def body():
    topic = named("once")
    create_topic(topic, 1)
    for session in range(2):
        sender = producer(enable_idempotence=True, linger_ms=1, batch_num_messages=100)
        sent = Deliveries()
        for number in range(COUNT):
            sender.produce(topic, f"{session}-{number}".encode(), on_delivery=sent)
            sender.poll(0)
        assert sender.flush(60) == 0
        assert [offset for _, offset in sent.records] == list(range(session * COUNT, (session + 1) * COUNT))

    seen = []
    reader = consumer(named("once-readers"))
    reader.subscribe([topic])
    until("all records arrive", lambda: poll(reader, seen) or len(seen) >= 2 * COUNT)
    reader.close()
    expected = [f"{session}-{number}".encode() for session in range(2) for number in range(COUNT)]
    assert [message.value() for message in seen] == expected


main("python idempotent producer: once and in order", body)
