// Asks for a new token.
const { WebSocketClient } = require('wsevent-client');

const client = new WebSocketClient('ws://localhost:8080', jwtToken);
client.on('token_refreshed', ({ token }) => {
  console.log('new token:', token);
  updateStoredToken(token);
});
client.connect().then(() => client.refreshToken());
