// Hears of circuits that open and close.
const { WebSocketClient } = require('wsevent-client');

const client = new WebSocketClient('ws://localhost:8080', jwtToken);
client.on('circuit_open', ({ data }) => {
  console.log('circuit opened for', data.nodeId);
  showCircuitBreakerAlert(data.nodeId);
});
client.on('circuit_closed', ({ data }) => {
  console.log('circuit closed for', data.nodeId);
  hideCircuitBreakerAlert(data.nodeId);
});
['circuit_open', 'circuit_closed'].forEach((event) => client.subscribe(event));
client.connect();
