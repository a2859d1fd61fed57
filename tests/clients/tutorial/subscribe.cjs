// Asks for all, for one service, for one kind of event, or for nothing, as its last argument says.
const WebSocket = require('ws');

const wishes = {
  all: { subscribe: true },
  service: { subscribe: { serviceName: 'my-service' } },
  event: { subscribe: { event: 'service_registered' } },
  nothing: { unsubscribe: true },
};
const socket = new WebSocket('ws://localhost:8080');
socket.on('open', () => socket.send(JSON.stringify(wishes[process.argv.at(-1)])));
socket.on('message', (text) => console.log('heard', JSON.parse(text)));
