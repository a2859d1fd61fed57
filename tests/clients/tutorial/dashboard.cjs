// Serves the services that there are, as it hears of them.
const express = require('express');
const WebSocket = require('ws');

const services = {};
const socket = new WebSocket('ws://localhost:8080');
socket.on('open', () => socket.send(JSON.stringify({ subscribe: true })));
socket.on('message', (text) => {
  const { event, data } = JSON.parse(text);
  if (event === 'service_registered') (services[data.serviceName] ??= {})[data.nodeId] = {};
  if (event === 'service_deregistered') delete services[data.serviceName]?.[data.nodeId];
});

const app = express();
app.get('/dashboard', (_, answer) => answer.json(services));
app.listen(3000, () => console.log('the dashboard listens'));
