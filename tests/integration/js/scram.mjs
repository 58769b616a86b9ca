// SCRAM-SHA-256 by mqtt.js: `node scram.mjs PORT CLIENT_ID USER PASSWORD`; prints what came of it.
import crypto from "node:crypto";
import mqtt from "mqtt";

const [port, clientId, user, password] = process.argv.slice(2);
const method = "SCRAM-SHA-256";
const hmac = (key, text) => crypto.createHmac("sha256", key).update(text).digest();
const bare = `n=${user},r=${crypto.randomBytes(12).toString("hex")}`;
let exchanged = "";
let salted = Buffer.alloc(0);

const client = mqtt.connect({
  host: "127.0.0.1", port: Number(port), clientId, protocolVersion: 5, reconnectPeriod: 0,
  properties: { authenticationMethod: method, authenticationData: Buffer.from(`n,,${bare}`) },
});

client.handleAuth = (packet, callback) => {
  const challenge = packet.properties.authenticationData.toString();
  const [, nonce, salt, rounds] = challenge.match(/^r=([^,]+),s=([^,]+),i=(\d+)/);
  salted = crypto.pbkdf2Sync(password, Buffer.from(salt, "base64"), Number(rounds), 32, "sha256");
  const withoutProof = `c=biws,r=${nonce}`;
  exchanged = [bare, challenge, withoutProof].join(",");
  const key = hmac(salted, "Client Key");
  const signature = hmac(crypto.createHash("sha256").update(key).digest(), exchanged);
  const proof = Buffer.from(key.map((byte, i) => byte ^ signature[i])).toString("base64");
  callback(null, {
    cmd: "auth", reasonCode: 0x18,
    properties: {
      authenticationMethod: method,
      authenticationData: Buffer.from(`${withoutProof},p=${proof}`),
    },
  });
};

client.on("connect", (connack) => {
  const expected = `v=${hmac(hmac(salted, "Server Key"), exchanged).toString("base64")}`;
  const told = connack.properties.authenticationData.toString();
  client.publish("scram/t", "x", { qos: 1 }, (error) => {
    process.stdout.write(!error && told === expected ? "ok\n" : `${error} ${told}\n`);
    client.end();
  });
});
client.on("error", (error) => {
  process.stdout.write(`refused ${error.code}\n`);
  client.end(true);
});
