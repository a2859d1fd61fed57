// Says everything that a registry tells.
const WebSocket = require('ws');

const socket = new WebSocket('ws://localhost:8080');
socket.on('open', () => console.log('connected'));
socket.on('message', (text) => console.log('heard', JSON.parse(text)));
socket.on('error', (error) => console.error('failed', error));
socket.on('close', () => console.log('connection closed'));
