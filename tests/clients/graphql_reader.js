// Subscribes with the packages `graphql-sse` and `graphql-ws`: node graphql_reader.js distinct|single|ws URL QUERY
//
// Prints each thing that it is told as one JSON array per line: ["next", result], ["complete"], ["error", what]. A broken
// connection is opened again.

const [how, url, query] = process.argv.slice(2);
const say = (...words) => console.log(JSON.stringify(words));

const again = { retryAttempts: 1000, shouldRetry: () => true };
const pause = () => new Promise((resolve) => setTimeout(resolve, 100));

const open = async () => {
  if (how === "ws") {
    const [{ createClient }, { WebSocket }] = await Promise.all([import("graphql-ws"), import("ws")]);
    return createClient({ ...again, url, webSocketImpl: WebSocket, retryWait: pause });
  }
  const { createClient } = await import("graphql-sse");
  return createClient({ ...again, url, singleConnection: how === "single", retry: pause });
};

const client = await open();
const stop = client.subscribe(
  { query },
  {
    next: (result) => say("next", result),
    complete: () => say("complete"),
    error: (error) => say("error", Array.isArray(error) ? error : String(error?.message ?? error)),
  },
);
process.on("SIGTERM", () => {
  stop();
  setTimeout(() => process.exit(0), 500);
});
