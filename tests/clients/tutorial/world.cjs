// The world of a program that names well-known ports: node --require world.cjs PROGRAM
//
// PORTS: `8080=40001,…`, the ports that stand for those that it names; where it listens on one, standard error says which
// it became. HELPERS: functions that it calls and does not have; each prints its name and what it got. TOKEN: `jwtToken`.
const net = require('node:net');

const pairs = (process.env.PORTS ?? '').split(',').filter(Boolean);
const ports = new Map(pairs.map((pair) => pair.split('=').map(Number)));
const standIn = (port) => ports.get(Number(port)) ?? port;

const { connect } = net.Socket.prototype;
net.Socket.prototype.connect = function (...args) {
  const options = Array.isArray(args[0]) ? args[0][0] : args[0];
  if (options?.port) options.port = standIn(options.port);
  return connect.apply(this, args);
};

const { listen } = net.Server.prototype;
net.Server.prototype.listen = function (port, ...rest) {
  this.on('listening', () => console.error(`${port} is ${this.address().port}`));
  return listen.call(this, standIn(port), ...rest);
};

for (const name of (process.env.HELPERS ?? '').split(',').filter(Boolean)) {
  globalThis[name] = (...args) => {
    const plain = (value) => (value instanceof Map ? Object.fromEntries(value) : value instanceof Set ? [...value] : value);
    console.log(name, JSON.stringify(args, (_, value) => plain(value)));
  };
}
globalThis.jwtToken = process.env.TOKEN ?? null;
