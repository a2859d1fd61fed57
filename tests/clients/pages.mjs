// Opens pages in chromium: each line on standard input is "NAME URL", or "NAME" to close that page.
//
// Prints what becomes of them as one JSON array per line: [NAME, "shows", text] whenever a page's text changes, [NAME,
// "log" | "warning" | "error", text] of its console, [NAME, "thrown", why], and [NAME, ...words] of its say(...words).
// Ends with standard input.

import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  headless: true,
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"],
});
const contexts = new Map();

// Each in a context of its own: pages that share one share its six connections, too.
async function open(name, url) {
  const say = (...words) => console.log(JSON.stringify([name, ...words]));
  const context = await browser.newContext();
  contexts.set(name, context);
  const page = await context.newPage();
  page.on("console", (message) => say(message.type(), message.text()));
  page.on("pageerror", (error) => say("thrown", String(error)));
  await page.exposeFunction("say", say);
  await page.addInitScript(() => {
    const show = () => document.body && say("shows", document.body.innerText);
    new MutationObserver(show).observe(document, { childList: true, subtree: true, characterData: true });
  });
  await page.goto(url);
}

for await (const line of createInterface({ input: process.stdin })) {
  const [name, url] = line.split(" ");
  if (url) await open(name, url);
  else await contexts.get(name).close();
}
await browser.close();
