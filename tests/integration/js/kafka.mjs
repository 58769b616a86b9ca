// kafkajs: produce with every codec, read it back, and look up offsets.
// Usage: node kafka.mjs HOST:PORT TOPIC; it prints "done", or what went wrong.
import kafkajs from "kafkajs";
import snappy from "kafkajs-snappy";

const { CompressionCodecs, CompressionTypes, Kafka, logLevel } = kafkajs;
CompressionCodecs[CompressionTypes.Snappy] = snappy;

const [, , address, topic] = process.argv;
const kafka = new Kafka({ clientId: "js", brokers: [address], logLevel: logLevel.NOTHING });
const admin = kafka.admin();
const producer = kafka.producer();
const codecs = [CompressionTypes.None, CompressionTypes.GZIP, CompressionTypes.Snappy];
const partitions = 12;

function check(condition, what) {
  if (!condition) throw new Error(what);
}

async function main() {
  await admin.connect();
  await producer.connect();
  await admin.createTopics({ topics: [{ topic, numPartitions: partitions }], waitForLeaders: true });
  for (const acks of [-1, 1]) {
    for (const compression of codecs) {
      const messages = [...Array(partitions * 2).keys()].map((number) => ({
        key: `k${number}`,
        value: `${acks} ${compression} ${number}`,
        partition: number % partitions,
        headers: { codec: `${compression}` },
      }));
      await producer.send({ topic, acks, compression, messages });
    }
  }
  const ends = await admin.fetchTopicOffsets(topic);
  check(ends.length === partitions, `${ends.length} partitions`);
  check(ends.every(({ high, low }) => high === "12" && low === "0"), JSON.stringify(ends));
  const since = await admin.fetchTopicOffsetsByTimestamp(topic, 1);
  check(since.every(({ offset }) => offset === "0"), JSON.stringify(since));
  await producer.disconnect();
  await admin.deleteTopicRecords({ topic, partitions: [{ partition: 3, offset: "5" }] });
  const [third] = (await admin.fetchTopicOffsets(topic)).filter(({ partition }) => partition === 3);
  check(third.low === "5", JSON.stringify(third));
  await admin.disconnect();
  console.log("done");
}

main().catch((error) => {
  console.log(error.stack);
  process.exit(1);
});
