// Reads a WebSocket with the package `ws`: node ws_reader.js URL [MESSAGE...]
//
// Says "open", sends the messages, and prints each message and the close as one JSON array per line.

import { WebSocket } from "ws";

const [url, ...messages] = process.argv.slice(2);
const say = (...words) => console.log(JSON.stringify(words));

const socket = new WebSocket(url);
socket.on("open", () => {
  say("open");
  messages.forEach((message) => socket.send(message));
});
socket.on("message", (data, isBinary) => {
  if (isBinary) say("binary", data.toString("base64"));
  else say("text", data.toString());
});
socket.on("close", (code) => say("close", code));
socket.on("error", (error) => say("error", error.message));
