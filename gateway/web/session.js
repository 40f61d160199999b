// Who is logged on: the key, which never leaves the browser, and the account as its private stream tells it.

import { Refused } from "./wire.js";

const PKCS8_HEAD = "302e020100300506032b657004220420"; // RFC 8410: an Ed25519 seed follows
const REPLACED = 4009;
const BAD_LOGON = 4003;
const KEPT_FILLS = 500;

/** Read a key file (JSON, PEM or the bare seed in base64): { key, account, privateKey }. Throws Error. */
export async function readKey(content, keyId = "") {
  if (!globalThis.crypto?.subtle) {
    throw new Error("This browser signs only over https or on this machine (localhost). Open the page that way to log on.");
  }
  const { id, account, pkcs8 } = parseKey(content.trim(), keyId);
  let privateKey;
  try {
    privateKey = await crypto.subtle.importKey("pkcs8", pkcs8, { name: "Ed25519" }, false, ["sign"]);
  } catch (error) {
    throw new Error(error.name === "NotSupportedError" ? "This browser does not know Ed25519." : "That is no Ed25519 private key.");
  }
  return { key: id, account, privateKey };
}

function parseKey(content, keyId) {
  if (content.startsWith("{")) {
    let fields;
    try {
      fields = JSON.parse(content);
    } catch {
      throw new Error("That is not a whole key file.");
    }
    if (!fields.key || !fields.private_key) throw new Error("That is no key file: it needs key and private_key.");
    return { id: fields.key, account: fields.account, pkcs8: wrapped(bytes(fields.private_key)) };
  }
  if (!keyId) throw new Error("Which key is it? A bare private key does not say.");
  const pem = /-----BEGIN PRIVATE KEY-----([\s\S]+)-----END PRIVATE KEY-----/.exec(content);
  return { id: keyId, account: keyId, pkcs8: pem ? bytes(pem[1].replace(/\s/g, "")) : wrapped(bytes(content)) };
}

function bytes(base64) {
  try {
    return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  } catch {
    throw new Error("That is no private key: it is not base64.");
  }
}

function wrapped(seed) {
  if (seed.length !== 32) throw new Error("That is no Ed25519 private key: it should have 32 bytes.");
  return Uint8Array.from([...PKCS8_HEAD.match(/../g).map((pair) => parseInt(pair, 16)), ...seed]);
}

/** Events: "change" whenever something of the account did, "fill" with the fill, "end" with why the log-on is over. */
export class Session extends EventTarget {
  constructor(wire) {
    super();
    this.wire = wire;
    this.account = null;
    this._credentials = null;
    this._lastCid = 0;
    this._doubts = new Set(); // cids of orders whose outcome is not known
    this._forget();
    wire.beforeSubscribing = () => this._enterAgain();
    wire.addEventListener("closed", (event) => this._closed(event.detail));
  }

  get mayTrade() {
    return this.scopes.includes("trade");
  }

  /** Log on with what `readKey` gave. Throws Refused. */
  async logon(credentials, cod) {
    this._forget();
    this._credentials = { ...credentials, cod };
    try {
      await this._enter();
    } catch (error) {
      this._credentials = null;
      throw error;
    }
    this._joinPrivate();
  }

  /** Log off; working orders stay, unless they were to go with the connection. */
  async logoff() {
    this._credentials = null;
    this.wire.leave("private");
    this._forget();
    this.dispatchEvent(new CustomEvent("end", { detail: "logged off" }));
    await this.wire.request("session.logout").catch(() => {}); // the server closes, the wire comes back without a key
  }

  /** Place an order under an id of our own, so that its outcome can be found also after a lost connection. */
  async place(fields) {
    const cid = `web-${Date.now().toString(36)}-${++this._lastCid}`;
    try {
      return await this.wire.request("order.place", { ...fields, cid });
    } catch (error) {
      if (error instanceof Refused && !error.final) this._doubts.add(cid);
      throw error;
    }
  }

  amend = (oid, fields) => this.wire.request("order.amend", { oid, ...fields });
  cancel = (oid) => this.wire.request("order.cancel", { oid });
  cancelAll = () => this.wire.request("cancel.mass");
  statements = () => this.wire.request("statements");
  proof = (cycle) => this.wire.request("proof", { cycle });

  /** The whole file of a statement. */
  async statement(cycle, format) {
    let data = "";
    for (let size = 1; data.length < size; ) {
      const part = await this.wire.request("statement", { cycle, format, offset: data.length });
      size = part.size;
      data += part.data;
      if (!part.data) break;
    }
    return data;
  }

  _forget() {
    this.account = null;
    this.scopes = [];
    this.aseq = 0;
    this.orders = new Map(); // oid -> order
    this.positions = new Map(); // symbol -> position
    this.balances = null;
    this.fills = []; // newest first
  }

  async _enter() {
    const { key, privateKey, cod } = this._credentials;
    const ts = this.wire.serverUs();
    const signed = new TextEncoder().encode(`wellhead.v1\n${this.wire.hello.challenge}\n${key}\n${ts}`);
    const signature = new Uint8Array(await crypto.subtle.sign("Ed25519", privateKey, signed));
    const sig = btoa(String.fromCharCode(...signature));
    const result = await this.wire.request("session.logon", { key, ts, sig, cod });
    this.account = result.account;
    this.scopes = result.scopes;
  }

  async _enterAgain() {
    if (!this._credentials) return;
    try {
      await this._enter();
    } catch (error) {
      this._end(error.message);
      return;
    }
    if (this._doubts.size) setTimeout(() => this._settleDoubts(), 0);
  }

  _joinPrivate() {
    const session = this;
    const channel = {
      name: "private",
      get resume_from() {
        return session.aseq ? session.aseq + 1 : undefined;
      },
    };
    this.wire.join("private", channel, (event) => this._follow(event), (error) => this._end(error.message));
  }

  _closed({ code, reason }) {
    if (!this._credentials) return;
    if (code === REPLACED) this._end("this key has logged on elsewhere");
    else if (code === BAD_LOGON) this._end(reason || "the key was refused");
  }

  _end(why) {
    this._credentials = null;
    this.wire.leave("private");
    this._forget();
    this.dispatchEvent(new CustomEvent("end", { detail: why }));
  }

  async _settleDoubts() {
    const { orders } = await this.wire.request("orders.open");
    for (const cid of this._doubts) {
      const known = orders.some((order) => order.cid === cid) || this.fills.some((fill) => fill.cid === cid);
      this.dispatchEvent(new CustomEvent("resolved", { detail: { cid, known } }));
    }
    this._doubts.clear();
  }

  _follow(event) {
    if (event.ev === "snapshot") {
      this.orders = new Map(event.orders.map((order) => [order.oid, order]));
      this.positions = new Map(event.positions.map((position) => [position.sym, position]));
      this.balances = event.balances;
    } else if (event.aseq !== this.aseq + 1) {
      this.aseq = 0; // something is missing: from the snapshot again
      this.wire.renew("private");
      return;
    } else {
      this[`_on_${event.ev}`]?.(event);
    }
    this.aseq = event.aseq;
    this.dispatchEvent(new Event("change"));
  }

  _on_order(event) {
    if (event.left > 0 && event.st !== "canceled") this.orders.set(event.oid, { ...this.orders.get(event.oid), ...event });
    else this.orders.delete(event.oid);
  }

  _on_fill(event) {
    const order = this.orders.get(event.oid);
    if (event.left === 0) this.orders.delete(event.oid);
    else if (order) this.orders.set(event.oid, { ...order, left: event.left, cum: event.cum, st: event.st });
    this.fills.unshift(event);
    this.fills.length = Math.min(this.fills.length, KEPT_FILLS);
    this.dispatchEvent(new CustomEvent("fill", { detail: event }));
  }

  _on_prevented(event) {
    const order = this.orders.get(event.oid);
    if (event.what === "decrement" && order) this.orders.set(event.oid, { ...order, left: event.left, qty: order.qty - event.qty });
  }

  _on_position({ position }) {
    const empty = ["net", "capacity", "open_buy", "open_sell"].every((name) => !position[name]) && position.escrow === "0" && position.bond === "0";
    if (empty) this.positions.delete(position.sym);
    else this.positions.set(position.sym, position);
  }

  _on_balance(event) {
    this.balances = event.balances;
  }

  _on_delivery(event) {
    this.dispatchEvent(new CustomEvent("delivery", { detail: event }));
  }
}
