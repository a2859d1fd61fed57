// Looks at the live page: node page.mjs PAGE-URL HOPS [PICTURE.png [WIDTHxHEIGHT [light|dark]]]
//
// Waits until it shows so many cards with a rate and some events; prints what it shows as one JSON object.

import { chromium } from "playwright-core";

const [pageUrl, hops, picture, size = "1280x800", scheme = "light"] = process.argv.slice(2);
const [width, height] = size.split("x").map(Number);

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  headless: true,
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"],
});
const page = await browser.newPage({ viewport: { width, height }, colorScheme: scheme, deviceScaleFactor: 2 });
const errors = [];
const foreign = [];
page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
page.on("pageerror", (error) => errors.push(String(error)));
page.on("request", (request) => {
  const url = new URL(request.url());
  if (url.protocol !== "data:" && url.origin !== new URL(pageUrl).origin) foreign.push(request.url());
});

try {
  await page.goto(pageUrl);
  await page.waitForFunction(
    (hops) => {
      const cards = [...document.querySelectorAll(".card")];
      const alive = cards.filter((card) => card.classList.contains("ghost") || parseFloat(card.querySelector(".rate").textContent) > 0);
      return alive.length === hops && document.querySelectorAll("#events li").length > 0;
    },
    Number(hops),
    { timeout: 20000 },
  );
  // A few more looks, so that the figures have settled.
  await page.waitForTimeout(4500);
  if (picture) await page.screenshot({ path: picture, fullPage: width < 700 });
  const shown = await page.evaluate(() => {
    const text = (root, selector) => root.querySelector(selector)?.textContent ?? null;
    const cards = [...document.querySelectorAll(".column")].sort((a, b) => a.style.order - b.style.order);
    return {
      title: document.title,
      cards: cards.flatMap((column) => [...column.querySelectorAll(".card")]).map((card) => ({
        role: text(card, ".role span"), instance: text(card, ".role i"), path: text(card, ".path"), place: text(card, ".place"),
        rate: parseFloat(text(card, ".rate")), figures: [...card.querySelectorAll("dd")].map((dd) => dd.textContent), why: text(card, ".why"),
        inside: card.scrollWidth <= card.clientWidth + 1,
      })),
      edges: [...document.querySelectorAll(".edge")].map((edge) => [text(edge, ".above"), text(edge, ".below")]),
      readers: text(document, ".crowd b"),
      tail: document.querySelector("#tail").textContent,
      events: [...document.querySelectorAll("#events li .data")].map((data) => data.textContent),
      facts: Object.fromEntries([...document.querySelectorAll("#facts dt")].map((dt) => [dt.textContent, dt.nextSibling.textContent])),
      overflow: document.documentElement.scrollWidth > innerWidth,
    };
  });
  console.log(JSON.stringify({ ...shown, errors, foreign }));
} catch (error) {
  if (picture) await page.screenshot({ path: picture });
  console.error(String(error), JSON.stringify({ errors, foreign }));
  process.exitCode = 1;
} finally {
  await browser.close();
}
