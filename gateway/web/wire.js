// The protocol's client: one websocket that mends itself, requests that are answered once, subscriptions that come back.

const RETRY_MS = [250, 500, 1000, 2000, 4000, 8000];
const SILENCE_MS = 10000; // without a heartbeat, which comes every second, the line is dead
const UNKNOWN = { code: 5001, name: "OUTCOME_UNKNOWN", final: false, msg: "the connection was lost before the answer" };

/** A refusal. `final`: it has not been done and never will be. */
export class Refused extends Error {
  constructor(err) {
    super(err.msg);
    Object.assign(this, err);
  }
}

/**
 * Events: "state" (connecting, open, closed), "hello", "push" with the message as detail, "closed" with { code, reason }.
 * After each hello `beforeSubscribing` is awaited: whoever logs on does it there, before the channels are asked for.
 */
export class Wire extends EventTarget {
  constructor(url) {
    super();
    this.url = url;
    this.state = "connecting";
    this.hello = null;
    this.beforeSubscribing = async () => {};
    this.rtt_ms = null;
    this._socket = null;
    this._lastId = 0;
    this._waiting = new Map(); // id -> { resolve, reject }
    this._channels = new Map(); // name -> { channel, handler }
    this._failures = 0;
    this._heard_ms = 0;
    this._clock = null; // { real, market, speed, at_ms }
    setInterval(() => this._watch(), 2000);
    addEventListener("online", () => this._socket ?? this.connect());
  }

  connect() {
    clearTimeout(this._retry);
    const socket = (this._socket = new WebSocket(this.url, "wellhead.v1.json"));
    this._set("connecting");
    this._heard_ms = performance.now();
    socket.onmessage = (event) => socket === this._socket && this._take(event.data);
    socket.onclose = (event) => socket === this._socket && this._lost(event);
  }

  /** When there is a connection: now, or when it has come back. */
  async opened() {
    if (this.state === "open") return;
    await new Promise((resolve) => {
      const look = () => {
        if (this.state !== "open") return;
        this.removeEventListener("state", look);
        resolve();
      };
      this.addEventListener("state", look);
    });
  }

  /** Send a request; its result. Throws Refused. */
  request(op, fields = {}) {
    if (this._socket?.readyState !== WebSocket.OPEN) {
      return Promise.reject(new Refused({ code: 0, name: "NOT_CONNECTED", final: true, msg: "there is no connection" }));
    }
    const id = ++this._lastId;
    const sent_ms = performance.now();
    this._socket.send(JSON.stringify({ op, id, ...fields }));
    return new Promise((resolve, reject) => {
      this._waiting.set(id, {
        reject,
        resolve: (result) => {
          this.rtt_ms = performance.now() - sent_ms;
          resolve(result);
        },
      });
    });
  }

  /**
   * Join a channel until `leave` is called with the same name. `handler` gets its pushes; those of a channel by symbol
   * only for the symbols meant. A refusal goes to `refused`.
   */
  join(name, channel, handler, refused = () => {}) {
    this.leave(name);
    const held = { channel, handler, refused, means: meaning(channel) };
    this._channels.set(name, held);
    if (this.state === "open") this._subscribe(held);
  }

  leave(name) {
    const held = this._channels.get(name);
    if (!held) return;
    this._channels.delete(name);
    const { depth: _depth, resume_from: _resume, ...channel } = held.channel;
    if (this.state === "open") this.request("unsubscribe", { channels: [channel] }).catch(() => {});
  }

  /** Ask for a channel again: its snapshot puts right what went wrong. */
  renew(name) {
    const held = this._channels.get(name);
    if (held && this.state === "open") this._subscribe(held);
  }

  /** The market's time now, in microseconds. */
  marketUs() {
    if (!this._clock) return Date.now() * 1000;
    const { market, speed, at_ms } = this._clock;
    return market + (performance.now() - at_ms) * 1000 * speed;
  }

  /** The server's real time now, in microseconds. */
  serverUs() {
    if (!this._clock) return Date.now() * 1000;
    return Math.round(this._clock.real + (performance.now() - this._clock.at_ms) * 1000);
  }

  /** How many times faster than real time the market runs. */
  get speed() {
    return this._clock?.speed ?? 1;
  }

  _set(state) {
    this.state = state;
    this.dispatchEvent(new CustomEvent("state", { detail: state }));
  }

  _take(data) {
    this._heard_ms = performance.now();
    const message = JSON.parse(data);
    if (message.ch === undefined) this._answer(message);
    else if (message.ch === "hello") this._greeted(message);
    else if (message.ch === "hb") this._beat(message);
    else this._push(message);
  }

  _answer(message) {
    const waiting = this._waiting.get(message.id);
    this._waiting.delete(message.id);
    if (message.ok) waiting?.resolve(message.r);
    else waiting?.reject(new Refused(message.err));
  }

  async _greeted(hello) {
    this.hello = hello;
    this._tell_time(hello);
    await this.beforeSubscribing(hello);
    this._failures = 0;
    this._set("open");
    this.request("subscribe", { channels: [{ name: "hb" }] }).catch(() => {});
    for (const held of this._channels.values()) this._subscribe(held);
  }

  _subscribe(held) {
    this.request("subscribe", { channels: [held.channel] }).catch(held.refused);
  }

  _beat(message) {
    this._tell_time(message);
    this.dispatchEvent(new CustomEvent("beat", { detail: message }));
  }

  _tell_time({ ts, market_ts }) {
    const at_ms = performance.now();
    const before = this._clock;
    let speed = before?.speed ?? 1;
    if (before && ts - before.real > 5e5) speed = Math.max(0, Math.round((market_ts - before.market) / (ts - before.real)));
    if (before && market_ts === before.market) speed = 0;
    this._clock = { real: ts, market: market_ts, speed, at_ms };
  }

  _push(message) {
    for (const { channel, handler, means } of this._channels.values()) {
      if (channel.name === message.ch && means(message.sym)) handler(message);
    }
  }

  _lost(event) {
    this._socket = null;
    for (const waiting of this._waiting.values()) waiting.reject(new Refused(UNKNOWN));
    this._waiting.clear();
    this.dispatchEvent(new CustomEvent("closed", { detail: { code: event.code, reason: event.reason } }));
    this._set("closed");
    const pause_ms = RETRY_MS[Math.min(this._failures++, RETRY_MS.length - 1)];
    this._retry = setTimeout(() => this.connect(), pause_ms * (0.75 + Math.random() / 2));
  }

  _watch() {
    if (this._socket?.readyState === WebSocket.OPEN && performance.now() - this._heard_ms > SILENCE_MS) {
      this._socket.close(4000, "silence");
    }
  }
}

/** Whether a push about a symbol is one that the channel was asked for. */
function meaning(channel) {
  if (Array.isArray(channel.symbols)) {
    const symbols = new Set(channel.symbols);
    return (symbol) => symbols.has(symbol);
  }
  return (symbol) => {
    const [gpuClass, region] = (symbol ?? "").split("-");
    return (channel.class ?? gpuClass) === gpuClass && (channel.region ?? region) === region;
  };
}
