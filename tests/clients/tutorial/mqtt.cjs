// Says everything that a registry tells over MQTT.
const mqtt = require('mqtt');

const client = mqtt.connect('mqtt://localhost:1883');
client.on('connect', () => {
  console.log('connected');
  client.subscribe('maxine/registry/events/+', (error) => console.log(error ? `refused: ${error}` : 'subscribed'));
});
client.on('message', (topic, text) => console.log('heard on', topic, JSON.parse(text)));
