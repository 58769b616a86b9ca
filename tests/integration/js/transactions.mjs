// kafkajs copies a topic to another, a batch in a transaction, and aborts one:
//   node transactions.mjs ADDRESS SOURCE TARGET GROUP TRANSACTIONAL_ID COUNT
// It ends with status 0 when all is copied, and else says what was not.
import { Kafka, logLevel } from 'kafkajs'

const [address, source, target, group, transactionalId, count] = process.argv.slice(2)
const PATIENCE_MS = 60_000

setTimeout(() => {
  console.error('not within', PATIENCE_MS, 'ms')
  process.exit(2)
}, PATIENCE_MS).unref()

const kafka = new Kafka({ brokers: [address], logLevel: logLevel.ERROR })
const producer = kafka.producer({ transactionalId, maxInFlightRequests: 1, idempotent: true })
const consumer = kafka.consumer({ groupId: group, readUncommitted: false })
await producer.connect()

const aborted = await producer.transaction()
await aborted.send({ topic: target, messages: [{ value: 'aborted', partition: 0 }] })
await aborted.abort()

await consumer.connect()
await consumer.subscribe({ topics: [source], fromBeginning: true })
let left = Number(count)
const copied = new Promise((resolve) => {
  consumer.run({
    autoCommit: false,
    eachBatch: async ({ batch, resolveOffset }) => {
      const transaction = await producer.transaction()
      const messages = batch.messages.map(({ value }) => {
        return { value: Buffer.concat([value, Buffer.from('!')]), partition: batch.partition }
      })
      await transaction.send({ topic: target, messages })
      const offset = (BigInt(batch.lastOffset()) + 1n).toString()
      const partitions = [{ partition: batch.partition, offset }]
      await transaction.sendOffsets({
        consumerGroupId: group,
        topics: [{ topic: source, partitions }],
      })
      await transaction.commit()
      resolveOffset(batch.lastOffset())
      left -= messages.length
      if (left === 0) resolve()
    },
  })
})
await copied
await consumer.disconnect()
await producer.disconnect()
