// Keeps the services that there are, and shows them whenever that changes.
const { WebSocketClient } = require('wsevent-client');

const services = new Map();
const client = new WebSocketClient('ws://localhost:8080', jwtToken);
client.on('service_registered', ({ data: { serviceName, nodeId } }) => {
  services.set(serviceName, (services.get(serviceName) ?? new Set()).add(nodeId));
  renderServiceGrid(services);
});
client.on('service_deregistered', ({ data: { nodeId } }) => {
  const [service] = nodeId.split(':');
  services.get(service)?.delete(nodeId);
  if (services.get(service)?.size === 0) services.delete(service);
  renderServiceGrid(services);
});
['service_registered', 'service_deregistered', 'service_unhealthy'].forEach((event) => client.subscribe(event));
client.connect();
