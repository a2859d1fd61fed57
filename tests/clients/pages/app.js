// What the pages beside this read, and the route by which a test sends.

for (const path of ["/alerts", "/metrics", "/load", "/room"]) routeRegistry.registerStreamRoute(path);

graphQLRegistry.registerSubscription("score", "type Subscription { score(of: String): String }", "kickOff");

function kickOff({ args }) {
  return { of: args.of ?? "all", goals: 0 };
}

// Posted is {to, data, filter}: a stream's path or a subscription's name, what to send, and to whom.
function send(context) {
  const { to, data, filter } = JSON.parse(context.request.body);
  return to.startsWith("/")
    ? routeRegistry.sendStreamMessageFiltered(to, data, filter)
    : graphQLRegistry.sendSubscriptionMessageFiltered(to, data, filter);
}

routeRegistry.registerRoute("/send", "send", "POST");
