// Two services talk by events: an order that is created reserves inventory, which is announced under the order's key.
import { assert, createTopics, kafka as connect, main, named, runJoined, until } from './support.mjs';

const kafka = connect();
const [orders, inventory] = ['orders', 'inventory'].map(named);
const producer = kafka.producer();
const stock = { reserved: [], released: [] };

class OrderService {
  async createOrder(order) {
    await producer.send({
      topic: orders,
      messages: [
        { key: order.id, value: JSON.stringify({ type: 'ORDER_CREATED', data: order, timestamp: new Date().toISOString() }) },
      ],
    });
    return order;
  }

  async cancelOrder(order) {
    await producer.send({
      topic: orders,
      messages: [{ key: order.id, value: JSON.stringify({ type: 'ORDER_CANCELLED', data: order }) }],
    });
  }
}

async function reserveInventory(order) {
  stock.reserved.push(order.id);
  await producer.send({
    topic: inventory,
    messages: [{ key: order.id, value: JSON.stringify({ type: 'INVENTORY_RESERVED', orderId: order.id }) }],
  });
}

async function startInventoryConsumer() {
  const consumer = kafka.consumer({ groupId: named('inventory-service') });
  await consumer.connect();
  await consumer.subscribe({ topic: orders, fromBeginning: true });
  await runJoined(consumer, {
    eachMessage: async ({ message }) => {
      const event = JSON.parse(message.value.toString());
      switch (event.type) {
        case 'ORDER_CREATED':
          await reserveInventory(event.data);
          break;
        case 'ORDER_CANCELLED':
          stock.released.push(event.data.id);
          break;
      }
    },
  });
  return consumer;
}

await main('event-driven services: orders reserve and release inventory', async () => {
  await createTopics([orders, inventory].map((topic) => ({ topic, numPartitions: 3 })));
  await producer.connect();
  const service = await startInventoryConsumer();
  const announced = [];
  const listener = kafka.consumer({ groupId: named('listener') });
  await listener.connect();
  await listener.subscribe({ topic: inventory, fromBeginning: true });
  await runJoined(listener, {
    eachMessage: async ({ message }) => void announced.push([message.key.toString(), JSON.parse(message.value).type]),
  });

  const orderService = new OrderService();
  for (const id of ['o-1', 'o-2', 'o-3']) await orderService.createOrder({ id });
  await orderService.cancelOrder({ id: 'o-2' });
  await until('the reservations are announced', () => announced.length === 3 && stock.released.length === 1);
  assert.deepEqual(stock.reserved.sort(), ['o-1', 'o-2', 'o-3']);
  assert.deepEqual(stock.released, ['o-2']);
  assert.deepEqual(announced.sort(), ['o-1', 'o-2', 'o-3'].map((id) => [id, 'INVENTORY_RESERVED']));
  await service.disconnect();
  await listener.disconnect();
  await producer.disconnect();
});
