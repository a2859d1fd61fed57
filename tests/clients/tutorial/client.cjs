// Hears of instances that come and go, and of one service's heartbeats.
const { WebSocketClient } = require('wsevent-client');

const client = new WebSocketClient('ws://localhost:8080', jwtToken);
client.on('authenticated', ({ user }) => console.log('authenticated as', user.username));
client.on('service_registered', ({ data }) => console.log('service registered:', data.serviceName));
for (const event of ['service_deregistered', 'service_unhealthy']) {
  client.on(event, ({ data }) => console.log(event.replace('_', ' '), data.nodeId));
}
client.connect().then(() => {
  ['service_registered', 'service_deregistered', 'service_unhealthy'].forEach((event) => client.subscribe(event));
  client.subscribe('service_registered', 'my-service');
  client.subscribe('service_heartbeat', 'api-service');
});
