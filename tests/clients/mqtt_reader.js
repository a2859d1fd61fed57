// An MQTT subscriber: URL FILTER QOS COUNT [VERSION [PASSWORD]]; prints each message as "topic payload".
import mqtt from 'mqtt';

const [url, filter, qos, count, version, password] = process.argv.slice(2);
const options = { protocolVersion: Number(version ?? 4), reconnectPeriod: 0 };
if (password) {
  Object.assign(options, { username: 'any', password });
}
const client = mqtt.connect(url, options);
let left = Number(count);
client.on('connect', () => client.subscribe(filter, { qos: Number(qos) }, (error) => error && fail(error)));
client.on('error', fail);
client.on('close', () => process.exit(left > 0 ? 1 : 0));
client.on('message', (topic, payload) => {
  console.log(`${topic} ${payload}`);
  left -= 1;
  if (left === 0) {
    client.end();
  }
});

function fail(error) {
  console.error(error.message);
  process.exit(1);
}
