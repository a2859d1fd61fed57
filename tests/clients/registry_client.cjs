// Says what it hears from a registry, a line each. Arguments: URL, token.
const { WebSocketClient } = require('../../clients/javascript');

const client = new WebSocketClient(process.argv[2], process.argv[3] ?? null);
const say = (...words) => console.log(words.join(' '));
client.on('subscribed', (message) => say('subscribed', JSON.stringify(message.filter)));
client.on('service_registered', (event) => say(event.event, event.data.nodeId));
client.on('token_refreshed', () => say('refreshed'));
client.on('auth_failed', () => say('refused'));
client.on('error', () => say('error'));
// As programs do that know no better: it must do no harm.
client.on('close', () => {
  say('close');
  setTimeout(() => client.connect(), 100);
});
client.subscribe('service_registered', 'web');
client.connect().then(
  () => {
    client.subscribe('service_registered', null, 'api:localhost:9');
    client.refreshToken();
  },
  () => say('failed'),
);
