/**
 * What a script of `wsevent --script FILE` may use beside JavaScript itself.
 *
 * Save as `wsevent.d.ts` next to the script: `wsevent types > wsevent.d.ts`.
 */

/** A value that has a form in JSON. A string is sent as it is, anything else as JSON. */
type Sendable = unknown;

/** Who gets it: each of these must be in the query string with which a reader came. None is everybody. */
type Filter = string | { [key: string]: string | number | boolean };

interface ScriptRequest {
  /** Without the query string. */
  path: string;
  method: string;
  /** By their names in lower case. */
  headers: { [name: string]: string };
  /** The query string's last value of each name. */
  query: { [name: string]: string };
  /** The fields of an urlencoded form, or the text fields of a multipart one. */
  form: { [name: string]: string };
  /** The text of the body, if there is one. */
  body?: string;
}

/** What a handler is called with. The request's fields stand here, too. */
interface HandlerContext extends ScriptRequest {
  request: ScriptRequest;
  /** The arguments of a GraphQL operation. */
  args: { [name: string]: unknown } | null;
  kind: "httpRoute" | "graphqlSubscription" | "init";
  /** The script's file. */
  scriptUri: string;
  handlerName: string;
}

/** What a handler answers; a string is a body alone, nothing is an empty one. */
interface HandlerResult {
  /** 200 to 599; 200 if it is left out. */
  status?: number;
  /** Anything but a string is sent as JSON. */
  body?: unknown;
  /** The body as bytes. */
  bodyBase64?: string;
  contentType?: string;
  headers?: { [name: string]: string | string[] };
}

interface RouteRegistry {
  /** From now on a GET of this path is a stream of events. Throws when the path cannot be one. */
  registerStreamRoute(path: string): string;
  /** From now on this global function answers requests for the path; one that ends in `/*` is all paths below. */
  registerRoute(path: string, handlerName: string, method?: string): string;
  /** Sends to all readers of one stream; says how many. */
  sendStreamMessage(path: string, data: Sendable): string;
  /** Sends to those readers of one stream whom the filter admits; says how many. */
  sendStreamMessageFiltered(path: string, data: Sendable, filter?: Filter | null): string;
  sendStreamMessageToConnections(path: string, data: Sendable, filter?: Filter | null): string;
}

interface GraphQLRegistry {
  /** From now on the subscription can be subscribed to. The resolver, if there is one, says its first value. */
  registerSubscription(name: string, sdl: string, resolverName?: string): string;
  sendSubscriptionMessage(name: string, data: Sendable): string;
  sendSubscriptionMessageFiltered(name: string, data: Sendable, filter?: Filter | null): string;
}

declare const routeRegistry: RouteRegistry;
declare const graphQLRegistry: GraphQLRegistry;

/** See {@link RouteRegistry.registerStreamRoute}. */
declare function registerWebStream(path: string): void;
/** See {@link RouteRegistry.registerRoute}. */
declare function register(path: string, handlerName: string, method?: string): void;
/** Sends to every reader of every stream. */
declare function sendStreamMessage(data: Sendable): void;
/** Sends to all readers of one stream. */
declare function sendStreamMessage(path: string, data: Sendable): string;
declare function sendStreamMessageToPath(path: string, data: Sendable): string;
declare function sendStreamMessageFiltered(path: string, data: Sendable, filter?: Filter | null): string;
declare function sendStreamMessageToConnections(path: string, data: Sendable, filter?: Filter | null): string;
/** See {@link GraphQLRegistry.registerSubscription}. */
declare function registerGraphQLSubscription(name: string, sdl: string, resolverName?: string): string;
declare function sendSubscriptionMessage(name: string, data: Sendable): string;
declare function sendSubscriptionMessageFiltered(name: string, data: Sendable, filter?: Filter | null): string;
declare function sendSubscriptionMessageToConnections(name: string, data: Sendable, filter?: Filter | null): string;

/** One line in the log. */
declare function writeLog(message: unknown): void;

/** Lines in the log, on standard error; `debug` with `-v` only. */
declare const console: {
  log(...values: unknown[]): void;
  info(...values: unknown[]): void;
  warn(...values: unknown[]): void;
  error(...values: unknown[]): void;
  debug(...values: unknown[]): void;
};

/** What `onEvent(event)` of a `--stage-script` is called with, and may return: nothing, one, or an array of them. */
interface StreamEvent {
  /** The publisher's own name for it, if it gave one. */
  id?: string | null;
  type?: string | null;
  /** In Unix milliseconds. */
  time?: number;
  /** The parsed JSON, or the payload where it is none. */
  data?: any;
  /** As it was published. What is changed here counts, not `data`. */
  payload?: string;
}
