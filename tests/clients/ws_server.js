// Serves a WebSocket with the package `ws`, compression offered: node ws_server.js
//
// Prints its URL. Each client gets a text, a binary message, a text in fragments, and, when it answered a ping, "pong";
// then the close 1000.

import { WebSocketServer } from "ws";

const server = new WebSocketServer({ port: 0, host: "localhost", perMessageDeflate: { threshold: 0 } });
server.on("listening", () => console.log(`ws://localhost:${server.address().port}/anything`));
server.on("connection", (socket) => {
  socket.send("text: ä");
  socket.send(Buffer.from([0xff, 0x00]));
  socket.send("in ", { fin: false });
  socket.send("", { fin: false });
  socket.send("three ", { fin: false });
  socket.send("fragments");
  socket.ping();
  socket.on("pong", () => {
    socket.send("pong");
    socket.close(1000);
  });
});
