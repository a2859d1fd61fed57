// What a script sees: every name of the interface, over the one function that reaches outside. Names of both
// generations stand side by side; their types are in host.d.ts.
(function (native) {
  "use strict";
  const { parse, stringify } = JSON;

  const checked = (value, what) => {
    if (typeof value === "string" && value !== "") return value;
    throw new TypeError(`${what} must be a string that is not empty`);
  };

  const path = (value) => {
    if (typeof value !== "string" || !value.startsWith("/")) {
      throw new TypeError(`a path must be a string that starts with "/": ${String(value)}`);
    }
    if (value.length > 200) throw new RangeError("a path has at most 200 characters");
    return value;
  };

  // What is sent: a string as it is, anything else as JSON.
  const payload = (data) => {
    if (typeof data === "string") return data.toWellFormed();
    const json = stringify(data);
    if (json === undefined) throw new TypeError(`what is sent must have a form in JSON: ${typeof data} has none`);
    return json;
  };

  const filter = (value) => {
    if (value === undefined || value === null || typeof value === "string") return value ?? "";
    if (typeof value === "object" && !Array.isArray(value)) return stringify(value);
    throw new TypeError("a filter is a JSON string or an object");
  };

  const shown = (value) => {
    if (typeof value === "string") return value;
    if (value instanceof Error) return value.stack ? `${value}\n${value.stack}` : String(value);
    try {
      return stringify(value) ?? String(value);
    } catch {
      return String(value);
    }
  };

  const log =
    (level) =>
    (...values) =>
      native("log", level, values.map(shown).join(" ").toWellFormed());

  const registerStream = (to) => native("register_stream", path(to));
  const sendAll = (data) => native("send_all", payload(data));
  const send = (to, data) => native("send", path(to), payload(data));
  const sendFiltered = (to, data, to_whom) => native("send_filtered", path(to), payload(data), filter(to_whom));
  const registerRoute = (at, handler, method = "GET") =>
    native("register_route", path(at), checked(handler, "a handler's name"), checked(method, "a method").toUpperCase());
  const registerSubscription = (name, sdl, resolver) =>
    native("register_subscription", checked(name, "a subscription's name"), checked(sdl, "its type"), resolver ?? "");
  const publish = (name, data) => native("send_subscription", checked(name, "a subscription's name"), payload(data));
  const publishFiltered = (name, data, to_whom) =>
    native("send_subscription_filtered", checked(name, "a subscription's name"), payload(data), filter(to_whom));
  const isPath = (value) => typeof value === "string" && value.startsWith("/");

  const names = {
    console: { log: log("log"), info: log("info"), warn: log("warn"), error: log("error"), debug: log("debug") },
    writeLog: (message) => native("log", "log", String(message).toWellFormed()),
  };
  if (native("is_host")) {
    Object.assign(names, {
      registerWebStream: (to) => void registerStream(to),
      // One value for every stream, or a path and a value for that stream.
      sendStreamMessage: (...args) =>
        args.length > 1 && isPath(args[0]) ? send(args[0], args[1]) : void sendAll(args[0]),
      sendStreamMessageToPath: send,
      sendStreamMessageFiltered: sendFiltered,
      sendStreamMessageToConnections: sendFiltered,
      register: (at, handler, method) => void registerRoute(at, handler, method),
      registerGraphQLSubscription: registerSubscription,
      sendSubscriptionMessage: publish,
      sendSubscriptionMessageFiltered: publishFiltered,
      sendSubscriptionMessageToConnections: publishFiltered,
      routeRegistry: {
        registerStreamRoute: registerStream,
        registerRoute,
        sendStreamMessage: send,
        sendStreamMessageFiltered: sendFiltered,
        sendStreamMessageToConnections: sendFiltered,
      },
      graphQLRegistry: {
        registerSubscription,
        sendSubscriptionMessage: publish,
        sendSubscriptionMessageFiltered: publishFiltered,
      },
    });
  }
  for (const name in names) {
    Object.defineProperty(globalThis, name, { value: names[name], writable: true, configurable: true });
  }

  // A global function by its name, however it was declared; `undefined` when there is none.
  const find = (name) => {
    if (!/^[A-Za-z_$][\w$]*$/.test(name)) return undefined;
    let found = globalThis[name];
    if (typeof found !== "function") {
      try {
        found = (0, eval)(name);
      } catch {
        return undefined;
      }
    }
    return typeof found === "function" ? found : undefined;
  };

  // Calls `f` with the one argument that has the request's fields at both places where handlers look for them.
  const called = (f, { request, args, kind, scriptUri, handlerName }) =>
    f({ ...request, request, args: args ?? null, kind, scriptUri, handlerName });

  const answer = (result) => {
    if (result === undefined || result === null) return { body: "" };
    if (typeof result === "string") return { body: result.toWellFormed() };
    if (typeof result !== "object" || Array.isArray(result)) {
      throw new TypeError("a handler returns nothing, a string, or an object with status and body");
    }
    const { status, contentType, headers, bodyBase64 } = result;
    const body = result.body ?? "";
    if (typeof body === "string") return { status, contentType, headers, bodyBase64, body: body.toWellFormed() };
    return { status, contentType: contentType ?? "application/json", headers, body: payload(body) };
  };

  // What became of an event: one more text per event that goes on.
  const events = (result, event, before) => {
    if (result === undefined || result === null) return [];
    return (Array.isArray(result) ? result : [result]).map((one) => {
      if (typeof one === "string") return { payload: one.toWellFormed() };
      if (typeof one !== "object" || one === null) {
        throw new TypeError("onEvent returns nothing, an event, or an array of events");
      }
      const type = one.type === undefined ? {} : { type: one.type === null ? null : String(one.type) };
      if (one !== event) return { ...type, payload: payload(one.payload ?? one.data) };
      if (one.payload !== before.payload) return { ...type, payload: payload(one.payload) };
      return before.isChanged() ? { ...type, payload: payload(one.data) } : type;
    });
  };

  // `data` is parsed when somebody looks at it, and an event that nobody changes goes on byte for byte.
  const opened = (event) => {
    let data, json, seen;
    const see = () => {
      if (seen) return;
      seen = true;
      try {
        data = parse(event.payload);
      } catch {
        data = event.payload;
      }
      json = stringify(data);
    };
    Object.defineProperty(event, "data", {
      enumerable: true,
      get: () => (see(), data),
      set: (value) => (see(), (data = value)),
    });
    return { payload: event.payload, isChanged: () => seen && stringify(data) !== json };
  };

  const entries = {
    handle(call) {
      const f = find(call.handlerName);
      if (!f) throw new ReferenceError(`no function is named ${call.handlerName}`);
      return [called(f, call), answer];
    },
    // The first value of a subscription, if its resolver is there and says one.
    resolve(call) {
      const f = find(call.handlerName);
      return [f && called(f, call), (value) => value ?? null];
    },
    init(call) {
      const f = find("init");
      return [f && called(f, call), () => null];
    },
    onEvent(event) {
      const before = opened(event);
      const f = find("onEvent");
      if (!f) throw new ReferenceError("no function is named onEvent");
      return [f(event), (result) => events(result, event, before)];
    },
  };

  // What a call comes to, as JSON, or a promise of it.
  return (entry, argument) => {
    const [result, form] = entries[entry](parse(argument));
    const said = (value) => stringify(form(value)) ?? "null";
    return typeof result?.then === "function" ? Promise.resolve(result).then(said) : said(result);
  };
});
