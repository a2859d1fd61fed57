'use strict';

// Runs as it stands: required in Node, bundled, or as a <script> (then the class is `wseventClient.WebSocketClient`).
(function (root) {
  /** The first and the longest pause before a lost connection is opened again, in milliseconds. */
  const FIRST_PAUSE = 1000;
  const LONGEST_PAUSE = 30000;
  /** Each event comes in an envelope that says where it stands among the others. */
  const PROTOCOL = 'cloudevents.json';

  /** What the browser has, and Node from 22 on; else the package `ws`. */
  function socketClass() {
    return typeof WebSocket === 'function' ? WebSocket : require('ws');
  }

  /** Somewhere between half of the pause and all of it, so that many clients do not come back at once. */
  function jittered(pause) {
    return pause * (0.5 + Math.random() / 2);
  }

  class WebSocketClient {
    #url;
    #token;
    #handlers = new Map();
    #socket = null;
    /** The promise of the attempt under way, or of the open connection. */
    #opened = null;
    /** It was open once: from then on it is opened again whenever it is lost. */
    #lasting = false;
    #pause = FIRST_PAUSE;
    #timer = null;
    /** What every new connection has to hear. */
    #wanted = [];
    /** What the next connection has to hear. */
    #pending = [];
    /** Where the last event stood. */
    #position = null;
    /** What comes is told again from where the last connection ended. */
    #resuming = false;

    constructor(url = 'ws://localhost:8080', token = null) {
      this.#url = url;
      this.#token = token;
    }

    on(name, handler) {
      const handlers = this.#handlers.get(name) ?? [];
      this.#handlers.set(name, [...handlers, handler]);
      return this;
    }

    off(name, handler) {
      const handlers = this.#handlers.get(name) ?? [];
      this.#handlers.set(name, handlers.filter((known) => known !== handler));
      return this;
    }

    connect() {
      clearTimeout(this.#timer);
      if (!this.#opened) {
        this.#opened = this.#open();
        // Who does not wait for it hears of a failure by the `error` handler.
        this.#opened.catch(() => {});
      }
      return this.#opened;
    }

    subscribe(event, serviceName = null, nodeId = null) {
      const filter = { event };
      if (serviceName !== null) filter.serviceName = serviceName;
      if (nodeId !== null) filter.nodeId = nodeId;
      this.#want({ subscribe: filter });
    }

    unsubscribe() {
      this.#wanted = [];
      this.#want({ unsubscribe: true });
    }

    refreshToken() {
      if (!this.#token) return;
      if (this.#isOpen()) this.#say({ refresh_token: true });
      else this.#pending.push({ refresh_token: true });
    }

    disconnect() {
      this.#lasting = false;
      this.#position = null;
      clearTimeout(this.#timer);
      this.#socket?.close();
    }

    #want(message) {
      const known = this.#wanted.some((wanted) => JSON.stringify(wanted) === JSON.stringify(message));
      if (!known) this.#wanted.push(message);
      if (this.#isOpen()) this.#say(message);
    }

    #isOpen() {
      return this.#socket?.readyState === 1;
    }

    #say(message) {
      this.#socket.send(JSON.stringify(message));
    }

    #open() {
      return new Promise((resolve, reject) => {
        let socket;
        try {
          socket = new (socketClass())(this.#url, PROTOCOL);
        } catch (error) {
          this.#opened = null;
          reject(error);
          return;
        }
        this.#socket = socket;
        socket.onopen = () => {
          this.#greet();
          resolve();
        };
        socket.onmessage = (message) => this.#hear(message.data);
        socket.onerror = (event) => {
          const error = event.error ?? new Error(event.message || `cannot connect to ${this.#url}`);
          reject(error);
          this.#emit('error', error);
        };
        socket.onclose = (event) => {
          reject(new Error(`closed with code ${event.code}`));
          this.#lose(event);
        };
      });
    }

    #greet() {
      this.#lasting = true;
      if (this.#token) this.#say({ auth: this.#token });
      [...this.#wanted, ...this.#pending].forEach((message) => this.#say(message));
      this.#pending = [];
      this.#resuming = this.#position !== null;
      if (this.#resuming) this.#say({ resume: this.#position });
    }

    #lose(event) {
      this.#socket = null;
      this.#opened = null;
      // What came behind the last event is forgotten there: on from the oldest that is known.
      if (event.code === 1013 && event.reason.startsWith('gone')) this.#position = 'oldest';
      if (this.#lasting) {
        this.#timer = setTimeout(() => this.connect(), jittered(this.#pause));
        this.#pause = Math.min(this.#pause * 2, LONGEST_PAUSE);
      }
      this.#emit('close', event);
    }

    #hear(text) {
      let message;
      try {
        message = JSON.parse(text);
      } catch {
        return;
      }
      // The server speaks with us: the next loss is a new one.
      this.#pause = FIRST_PAUSE;
      if (message.specversion) {
        if (this.#resuming) return;
        this.#position = message.wseventid;
        message = message.data;
      } else if (message.type === 'resumed' || message.type === 'error') {
        this.#resuming = false;
      }
      if (message.type === 'token_refreshed') this.#token = message.token;
      // Trying again with the same token would not help.
      if (message.type === 'auth_failed' || message.type === 'auth_required') this.#lasting = false;
      this.#emit(message.event ?? message.type, message);
    }

    #emit(name, what) {
      for (const handler of this.#handlers.get(name) ?? []) {
        try {
          handler(what);
        } catch (error) {
          // The other handlers are not to suffer.
          setTimeout(() => {
            throw error;
          });
        }
      }
    }
  }

  if (typeof module === 'object' && module.exports) module.exports = { WebSocketClient };
  else root.wseventClient = { WebSocketClient };
})(globalThis);
