// Serves an endless event stream whose ids are its own: node sse_server.js
//
// Prints its URL. Events are numbered from 1, two per connection: then it hangs up, and goes on behind `Last-Event-ID`.

import { createServer } from "node:http";

const server = createServer((request, response) => {
  const last = Number((request.headers["last-event-id"] ?? "row/0").split("/")[1]);
  response.writeHead(200, { "Content-Type": "text/event-stream; charset=utf-8" });
  response.write(": welcome\nretry: 10\n\n");
  for (const n of [last + 1, last + 2]) {
    response.write(`id: row/${n}\r\nevent: row\r\ndata: first line of ${n}\r\ndata: second line\r\n\r\n`);
  }
  response.end();
});
server.listen(0, "localhost", () => console.log(`http://localhost:${server.address().port}/rows`));
