// One scenario of mqtt.js against a server, as a program:
//   node client.mjs ADDRESS PROTOCOL_VERSION PUBLISHER_ID SUBSCRIBER_ID TOPIC QOS
// It ends with status 0 when everything that it expects has come true, and else says what did not.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import mqtt from 'mqtt'

const [address, version, publisherId, subscriberId, topic, qosText] = process.argv.slice(2)
const protocolVersion = Number(version)
const qos = Number(qosText)
const MANY = 10_000
const LARGE = Buffer.alloc(5 * 1024 * 1024, 'robustmq ')
const PATIENCE_MS = 60_000

setTimeout(() => {
  console.error('not within', PATIENCE_MS, 'ms')
  process.exit(2)
}, PATIENCE_MS).unref()

function options(clientId, more = {}) {
  const durable = protocolVersion === 5 && more.clean === false
  return {
    clientId,
    protocolVersion,
    ...(protocolVersion === 3 ? { protocolId: 'MQIsdp' } : {}),
    ...(durable ? { properties: { sessionExpiryInterval: 3600 } } : {}),
    reconnectPeriod: 0,
    ...more,
  }
}

class Heard {
  // The messages of a client in order, to be awaited one by one.
  constructor(client) {
    this.messages = []
    this.waiting = []
    client.on('message', (name, payload, packet) => {
      const message = { topic: name, payload, qos: packet.qos, retain: packet.retain, packet }
      const waiter = this.waiting.shift()
      if (waiter) waiter(message)
      else this.messages.push(message)
    })
  }

  next() {
    if (this.messages.length) return Promise.resolve(this.messages.shift())
    return new Promise((resolve) => this.waiting.push(resolve))
  }
}

function connect(clientId, more) {
  const client = mqtt.connect(address, options(clientId, more))
  return { client, heard: new Heard(client) }
}

async function connected(clientId, more) {
  const made = connect(clientId, more)
  const [connack] = await once(made.client, 'connect')
  return { ...made, present: connack.sessionPresent }
}

async function liveAndRetained(publisher) {
  await publisher.client.publishAsync(`${topic}/kept`, 'kept', { qos: Math.max(qos, 1), retain: true })
  const { client, heard } = await connected(subscriberId)
  const granted = await client.subscribeAsync(`${topic}/+`, { qos })
  assert.equal(granted[0].qos, qos)
  const kept = await heard.next()
  assert.deepEqual([kept.topic, `${kept.payload}`, kept.retain, kept.qos], [`${topic}/kept`, 'kept', true, qos])
  await publisher.client.publishAsync(`${topic}/large`, LARGE, { qos })
  const large = await heard.next()
  assert.ok(large.payload.equals(LARGE))
  assert.deepEqual([large.retain, large.qos], [false, qos])
  await publisher.client.publishAsync(`${topic}/kept`, '', { qos: 1, retain: true })
  assert.equal((await heard.next()).payload.length, 0)
  await client.endAsync()
}

async function order(publisher) {
  const { client, heard } = await connected(subscriberId)
  await client.subscribeAsync(`${topic}/order`, { qos })
  const sent = []
  for (let number = 0; number < MANY; number += 1) {
    sent.push(publisher.client.publishAsync(`${topic}/order`, `${number}`, { qos }))
    if (number % 500 === 499) await Promise.all(sent.splice(0))
  }
  for (let number = 0; number < MANY; number += 1) {
    assert.equal(`${(await heard.next()).payload}`, `${number}`)
  }
  await client.endAsync()
}

async function offline(publisher) {
  const first = await connected(subscriberId, { clean: false })
  assert.equal(first.present, false)
  await first.client.subscribeAsync(`${topic}/offline`, { qos })
  await first.client.endAsync()
  for (let number = 0; number < 50; number += 1) {
    await publisher.client.publishAsync(`${topic}/offline`, `${number}`, { qos })
  }
  const again = await connected(subscriberId, { clean: false })
  assert.equal(again.present, protocolVersion > 3)
  if (qos > 0) {
    for (let number = 0; number < 50; number += 1) {
      assert.equal(`${(await again.heard.next()).payload}`, `${number}`)
    }
  }
  await again.client.endAsync()
  const fresh = await connected(subscriberId)
  assert.equal(fresh.present, false)
  await fresh.client.endAsync()
}

async function will() {
  const watcher = await connected(subscriberId)
  await watcher.client.subscribeAsync(`${topic}/will`, { qos })
  const mortal = await connected(`${publisherId}`, {
    will: { topic: `${topic}/will`, payload: Buffer.from('lost'), qos, retain: false },
  })
  mortal.client.stream.destroy()
  const heard = await watcher.heard.next()
  assert.deepEqual([`${heard.payload}`, heard.qos], ['lost', qos])
  await watcher.client.endAsync()
}

async function properties(publisher) {
  const { client, heard } = await connected(subscriberId)
  await client.subscribeAsync(`${topic}/properties`, { qos, properties: { subscriptionIdentifier: 5 } })
  await publisher.client.publishAsync(`${topic}/properties`, 'x', {
    qos,
    properties: {
      userProperties: { a: ['1', '2'] },
      contentType: 'text/plain',
      correlationData: Buffer.from([0, 1]),
      responseTopic: 'back',
    },
  })
  const got = (await heard.next()).packet.properties
  assert.deepEqual(got.userProperties.a, ['1', '2'])
  assert.equal(got.contentType, 'text/plain')
  assert.equal(got.responseTopic, 'back')
  assert.ok(got.correlationData.equals(Buffer.from([0, 1])))
  assert.equal(got.subscriptionIdentifier, 5)
  await client.endAsync()
}

const publisher = await connected(publisherId)
await liveAndRetained(publisher)
await order(publisher)
await offline(publisher)
if (protocolVersion === 5) await properties(publisher)
await publisher.client.endAsync()
await will()
console.log('ok')
