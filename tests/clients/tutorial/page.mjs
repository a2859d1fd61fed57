// A page that shows the services that there are: node page.mjs PAGE-URL REGISTRY-URL TOKEN
//
// Prints what the page shows whenever that changes; ends with standard input.
import { readFile } from 'node:fs/promises';
import { chromium } from 'playwright-core';

const [pageUrl, registryUrl, token] = process.argv.slice(2);
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  headless: true,
  args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking'],
});
process.stdin.on('end', async () => {
  await browser.close();
  process.exit(0);
});
process.stdin.resume();

const page = await browser.newPage();
await page.goto(pageUrl);
await page.exposeFunction('say', (...words) => console.log(words.join(' ')));
await page.addScriptTag({ content: await readFile(new URL('../../../clients/javascript/index.js', import.meta.url), 'utf8') });
await page.evaluate(
  ([url, token]) => {
    const services = new Map();
    const client = new wseventClient.WebSocketClient(url, token);
    const render = () => {
      const row = ([name, nodes]) => `<tr><th>${name}</th><td>${[...nodes].join(' ')}</td></tr>`;
      document.body.innerHTML = `<table>${[...services].map(row).join('')}</table>`;
      const shown = [...document.querySelectorAll('tr')].map((tr) => `${tr.children[0].textContent} ${tr.children[1].textContent}`);
      say('shows', shown.join(' | '));
    };
    client.on('authenticated', () => say('authenticated'));
    client.on('service_registered', ({ data: { serviceName, nodeId } }) => {
      services.set(serviceName, (services.get(serviceName) ?? new Set()).add(nodeId));
      render();
    });
    client.on('service_deregistered', ({ data: { serviceName, nodeId } }) => {
      services.get(serviceName)?.delete(nodeId);
      if (services.get(serviceName)?.size === 0) services.delete(serviceName);
      render();
    });
    client.subscribe('service_registered');
    client.subscribe('service_deregistered');
    return client.connect();
  },
  [registryUrl, token],
);
