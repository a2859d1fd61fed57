// Many readers of a registry: node mqtt_readers.mjs URL READERS EVENTS
//
// Says `ready` once all have subscribed, and then which instances each heard of, a JSON line for each reader.
import mqtt from 'mqtt';

const [url, readers, events] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])];

async function open() {
  const client = await mqtt.connectAsync(url, { reconnectPeriod: 0 });
  const heard = [];
  const done = new Promise((resolve) => {
    client.on('message', (_, text) => {
      heard.push(JSON.parse(text).data.nodeId);
      if (heard.length === events) resolve(heard);
    });
  });
  await client.subscribeAsync('maxine/registry/events/+', { qos: 1 });
  return { client, done };
}

const all = await Promise.all(Array.from({ length: readers }, open));
console.log('ready');
for (const { client, done } of all) {
  console.log(JSON.stringify(await done));
  await client.endAsync();
}
