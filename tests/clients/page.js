// Reads a topic from a page in chromium: node page.js PAGE-URL websocket|resuming|eventsource|history TOPIC-URL [MESSAGE...]
//
// Prints what the page sees as one JSON array per line; ends with standard input.

import { chromium } from "playwright-core";

const [pageUrl, how, topic, ...messages] = process.argv.slice(2);

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  headless: true,
  args: [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});
process.stdin.on("end", async () => {
  await browser.close();
  process.exit(0);
});
process.stdin.resume();

const page = await browser.newPage();
await page.exposeFunction("say", (...words) => console.log(JSON.stringify(words)));
await page.goto(pageUrl);
await page.evaluate(readers()[how], [topic, messages]);

// These run inside the page.
function readers() {
  return {
    websocket: ([topic, messages]) => {
      const base64 = (buffer) => btoa(String.fromCharCode(...new Uint8Array(buffer)));
      const socket = new WebSocket(topic);
      socket.binaryType = "arraybuffer";
      socket.onopen = () => {
        say("open");
        messages.forEach((message) => socket.send(message));
      };
      socket.onmessage = ({ data }) => (typeof data === "string" ? say("text", data) : say("binary", base64(data)));
      socket.onclose = ({ code }) => say("close", code);
    },
    // Comes back behind the last event, which a CloudEvent names.
    resuming: ([topic]) => {
      let since = "";
      const open = () => {
        const socket = new WebSocket(topic + since, "cloudevents.json");
        socket.onopen = () => say("open");
        socket.onmessage = ({ data }) => {
          const event = JSON.parse(data);
          since = `?since=${event.wseventid}`;
          say("text", String(event.data), event.wseventid);
        };
        socket.onclose = () => setTimeout(open, 100);
      };
      open();
    },
    eventsource: ([topic]) => {
      const source = new EventSource(topic);
      source.onopen = () => say("open");
      source.onmessage = (event) => say("text", event.data, event.lastEventId);
      source.onerror = () => source.readyState === EventSource.CLOSED && say("refused");
    },
    history: async ([topic]) => {
      try {
        say("history", await (await fetch(topic)).json());
      } catch {
        say("refused");
      }
    },
  };
}
