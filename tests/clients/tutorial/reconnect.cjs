// Comes back after a lost connection, as programs do that leave nothing to the client.
const { WebSocketClient } = require('wsevent-client');

const client = new WebSocketClient('ws://localhost:8080', jwtToken);
client.on('service_registered', ({ data }) => console.log('service_registered', data.nodeId));
client.on('error', (error) => {
  console.error('failed:', error.message);
  setTimeout(() => client.connect(), 5000);
});
client.on('close', () => {
  console.log('connection closed, reconnecting...');
  setTimeout(() => client.connect(), 1000);
});
client.subscribe('service_registered');
client.connect();
