// Says who it is, and then everything that it hears.
const WebSocket = require('ws');

const socket = new WebSocket('ws://localhost:8080');
socket.on('open', () => socket.send(JSON.stringify({ auth: 'your-jwt-token-here' })));
socket.on('message', (text) => {
  const message = JSON.parse(text);
  if (message.type === 'authenticated') console.log('authenticated successfully as', message.user.role);
  else console.log('heard', message);
});
