// An MQTT client in the browser: it connects over WebSocket, subscribes, publishes and shows
// what arrives. mqtt.js speaks the protocol; whatever came from elsewhere is shown as text.
"use strict";

const MOST_MESSAGES = 500;
const MOST_CHARACTERS = 10_000;
const CONNECT_TIMEOUT_MS = 10_000;

const element = (id) => document.getElementById(id);
const decoder = new TextDecoder();
let client = null;
let received = 0;

function show(online, notice = "") {
  element("state").dataset.state = online ? "online" : "offline";
  element("state").value = online ? "online" : "offline";
  for (const id of ["disconnect", "subscribe", "publish"]) element(id).disabled = !online;
  element("connect").disabled = client !== null;
  element("notice").textContent = notice;
}

function cell(text) {
  const made = document.createElement("td");
  made.textContent = text;
  return made;
}

function text(payload) {
  const whole = decoder.decode(payload.subarray(0, MOST_CHARACTERS));
  return payload.length > MOST_CHARACTERS ? `${whole}… (${payload.length} bytes)` : whole;
}

function arrived(topic, payload, packet) {
  received += 1;
  element("count").value = String(received);
  const row = document.createElement("tr");
  const qos = packet.retain ? `${packet.qos} retained` : `${packet.qos}`;
  row.append(cell(new Date().toLocaleTimeString()), cell(topic), cell(qos), cell(text(payload)));
  const rows = element("messages");
  rows.prepend(row);
  if (rows.children.length > MOST_MESSAGES) rows.lastElementChild.remove();
}

function connect() {
  const version = Number(element("version").value);
  const options = {
    protocolVersion: version,
    clean: true,
    reconnectPeriod: 0,
    connectTimeout: CONNECT_TIMEOUT_MS,
  };
  for (const [name, id] of [["clientId", "client-id"], ["username", "username"], ["password", "password"]]) {
    if (element(id).value) options[name] = element(id).value;
  }
  let made;
  try {
    made = mqtt.connect(element("url").value, options);
  } catch (error) {
    show(false, error.message);
    return;
  }
  client = made;
  let reason = "The server cannot be reached at this address.";
  made.on("connect", () => {
    reason = "";
    show(true);
  });
  made.on("message", arrived);
  made.on("error", (error) => {
    reason = error.message || reason;
  });
  made.on("disconnect", (packet) => {
    reason = `The server has ended the connection (reason 0x${packet.reasonCode.toString(16)}).`;
  });
  made.on("close", () => {
    if (client !== made) return;
    client = null;
    made.end(true);
    element("filters").replaceChildren();
    show(false, reason);
  });
  show(false);
}

function subscribed(filter, qos) {
  const item = document.createElement("li");
  item.dataset.filter = filter;
  const name = document.createElement("span");
  name.textContent = `${filter} (QoS ${qos})`;
  const leave = document.createElement("button");
  leave.type = "button";
  leave.textContent = "Unsubscribe";
  leave.addEventListener("click", () => {
    if (client) client.unsubscribe(filter, (error) => (error ? show(true, error.message) : item.remove()));
  });
  item.append(name, leave);
  for (const old of element("filters").children) if (old.dataset.filter === filter) old.remove();
  element("filters").append(item);
}

function on(form, action) {
  element(form).addEventListener("submit", (event) => {
    event.preventDefault();
    action();
  });
}

on("connection", () => {
  if (client === null) connect();
});

on("subscription", () => {
  const filter = element("filter").value;
  client.subscribe(filter, { qos: Number(element("filter-qos").value) }, (error, granted) => {
    if (error) show(client !== null && client.connected, error.message);
    else for (const each of granted) subscribed(each.topic, each.qos);
  });
});

on("publication", () => {
  const options = { qos: Number(element("topic-qos").value), retain: element("retain").checked };
  client.publish(element("topic").value, element("payload").value, options, (error) => {
    if (error) show(client !== null && client.connected, error.message);
  });
});

element("disconnect").addEventListener("click", () => client && client.end());

element("clear").addEventListener("click", () => {
  received = 0;
  element("count").value = "0";
  element("messages").replaceChildren();
});

fetch("listeners.json")
  .then((answer) => answer.json())
  .then((listeners) => {
    const secure = location.protocol === "https:";
    const port = secure ? listeners.wss : listeners.ws;
    if (port === null) {
      show(false, `The ${secure ? "wss" : "ws"} listener of this server is closed.`);
      return;
    }
    const scheme = secure ? "wss" : "ws";
    element("url").value = `${scheme}://${location.hostname}:${port}${listeners.path}`;
  })
  .catch((error) => show(false, `The listeners of this server are not known: ${error.message}`));
