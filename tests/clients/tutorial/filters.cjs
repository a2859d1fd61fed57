// Asks for what comes, for one service's heartbeats, and for the end of one instance.
const { WebSocketClient } = require('wsevent-client');

const client = new WebSocketClient('ws://localhost:8080', jwtToken);
for (const event of ['service_registered', 'service_heartbeat', 'service_unhealthy']) {
  client.on(event, ({ data }) => console.log(event, data.nodeId));
}
client.on('subscribed', ({ filter }) => console.log('subscribed', filter.event));
client.connect().then(() => {
  client.subscribe('service_registered');
  client.subscribe('service_heartbeat', 'my-api-service');
  client.subscribe('service_unhealthy', null, 'my-service:localhost:3000');
});
