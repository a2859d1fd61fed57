// An MQTT client with a password: URL [PROTOCOL]; prints "connected" or why not. PROTOCOL is the WebSocket subprotocol.
import mqtt from 'mqtt';

const [url, protocol] = process.argv.slice(2);
const options = { username: 'ann', password: 'hunter2', reconnectPeriod: 0, connectTimeout: 5000 };
if (protocol) {
  options.createWebsocket = (address, _protocols, { wsOptions }) => new wsOptions.WebSocket(address, [protocol]);
  options.wsOptions = { WebSocket: globalThis.WebSocket };
}
const client = mqtt.connect(url, options);
client.on('connect', () => {
  console.log('connected');
  client.end();
});
client.on('error', (error) => console.log(error.message));
client.on('close', () => process.exit(0));
