// Hears what services are configured with.
const { WebSocketClient } = require('wsevent-client');

const client = new WebSocketClient('ws://localhost:8080', jwtToken);
client.on('config_changed', ({ data: { serviceName, key, value } }) => {
  console.log(`config changed for ${serviceName}: ${key} = ${value}`);
  updateConfigCache(serviceName, key, value);
});
['config_changed', 'config_deleted'].forEach((event) => client.subscribe(event));
client.connect();
