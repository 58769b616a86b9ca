// Two members of a group of kafkajs read everything once; then a third goes on where they were.
//
//   node kafka_group.mjs ADDRESS TOPIC COUNT

import kafkajs from "kafkajs";

const [address, topic, count] = process.argv.slice(2);
const kafka = new kafkajs.Kafka({ brokers: [address], logLevel: kafkajs.logLevel.ERROR });
const groupId = "kafkajs";

async function member(seen) {
  const times = { sessionTimeout: 10_000, rebalanceTimeout: 10_000, heartbeatInterval: 200 };
  const consumer = kafka.consumer({ groupId, ...times });
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  await consumer.run({
    eachMessage: async ({ message }) => seen.add(message.value.toString()),
  });
  return consumer;
}

async function until(condition, what) {
  const end = Date.now() + 45_000;
  while (!condition()) {
    if (Date.now() > end) throw new Error(`${what}: not in time`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

const seen = new Set();
const members = await Promise.all([member(seen), member(seen)]);
await until(() => seen.size === Number(count), "everything is read");
await Promise.all(members.map((each) => each.disconnect()));

const admin = kafka.admin();
await admin.connect();
const offsets = await admin.fetchOffsets({ groupId, topics: [topic] });
const total = offsets[0].partitions.reduce((sum, each) => sum + Number(each.offset), 0);
if (total !== Number(count)) throw new Error(`committed ${total} of ${count}`);
const described = await admin.describeGroups([groupId]);
if (described.groups[0].state !== "Empty") throw new Error(JSON.stringify(described));
await admin.deleteGroups([groupId]);
await admin.disconnect();
process.exit(0);
