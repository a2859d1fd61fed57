/** What has happened in the registry. */
export interface RegistryEvent {
  event: string;
  data: Record<string, any>;
  /** Unix milliseconds. */
  timestamp: number;
}

/** The answer to `refreshToken`. */
export interface TokenRefreshed {
  type: 'token_refreshed';
  event: 'token_refreshed';
  token: string;
}

/** Hears what happens in a registry, and goes on after a lost connection. */
export class WebSocketClient {
  constructor(url?: string, token?: string | null);
  /** Calls the handler with the new token. */
  on(name: 'token_refreshed', handler: (message: TokenRefreshed) => void): this;
  /** Calls the handler when the connection cannot be opened, or breaks. */
  on(name: 'error', handler: (error: any) => void): this;
  /** Calls the handler when the connection is closed. */
  on(name: 'close', handler: (event: any) => void): this;
  /** Calls the handler with each event of this name, or each answer of this type. */
  on(name: string, handler: (message: RegistryEvent) => void): this;
  /** Calls the handler no more. */
  off(name: string, handler: (...args: any[]) => void): this;
  /** Opens the connection, unless it is open; rejects when that fails. */
  connect(): Promise<void>;
  /** Asks for events of this name, of one service or of one instance where that is said. Adds up. */
  subscribe(event: string, serviceName?: string | null, nodeId?: string | null): void;
  /** Asks for nothing any more. */
  unsubscribe(): void;
  /** Asks for a new token, which is used from then on. */
  refreshToken(): void;
  /** Closes the connection for good. */
  disconnect(): void;
}
