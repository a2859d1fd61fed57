// A broadcast server as the package `ws` documents it: node server.mjs PORT
//
// What comes on /pub goes to everybody else.

import { WebSocket, WebSocketServer } from "ws";

const server = new WebSocketServer({ host: "127.0.0.1", port: Number(process.argv[2]), backlog: 4096 });
server.on("connection", (socket, request) => {
  socket.on("error", () => {});
  if (request.url !== "/pub") return;
  socket.on("message", (data, binary) => {
    for (const client of server.clients) {
      if (client !== socket && client.readyState === WebSocket.OPEN) client.send(data, { binary });
    }
  });
});
