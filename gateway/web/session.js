// Who is logged on: the key, which never leaves the browser, and the account as its private stream tells it.

import { Refused } from "./wire.js";

const REPLACED = 4009;
const BAD_LOGON = 4003;
const PAGE = 100; // of the past, at a time
const KEPT = 1000; // of the past; what is older can be asked for again

/**
 * Events: "change" whenever something of the account did, "fill" with the fill, "joined" when the account's state has come as a
 * whole, "end" with why the log-on is over.
 */
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
    await this.wire.opened(); // after a log-off the wire has to come back first
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
  /** The past before what is known of it, a page: `fills` or `done`. Without `isMore` the newest page, to close a gap. */
  async loadPast(name, isMore) {
    const past = this.past[name];
    const before = (isMore && past.next) || undefined;
    const { fills, orders, next } = await this.wire.request(name === "fills" ? "fills" : "orders.history", { limit: PAGE, before });
    if (past !== this.past[name]) return; // somebody else has logged on meanwhile
    for (const item of fills ?? orders) past.items.set(past.keyOf(item), item);
    if (isMore || past.next === undefined) past.next = next;
    this.dispatchEvent(new Event("change"));
  }

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
    // next: where the page before begins; null: there is none; undefined: nothing was asked yet
    this.past = {
      fills: { items: new Map(), keyOf: (fill) => `${fill.tid}:${fill.oid}`, placeOf: (fill) => fill.tid, next: undefined },
      done: { items: new Map(), keyOf: (order) => order.oid, placeOf: (order) => order.seq, next: undefined },
    };
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
      const known = [orders, [...this.past.fills.items.values()]].some((list) => list.some((one) => one.cid === cid));
      this.dispatchEvent(new CustomEvent("resolved", { detail: { cid, known } }));
    }
    this._doubts.clear();
  }

  _follow(event) {
    if (event.ev === "snapshot") {
      this.orders = new Map(event.orders.map((order) => [order.oid, order]));
      this.positions = new Map(event.positions.map((position) => [position.sym, position]));
      this.balances = event.balances;
      this.dispatchEvent(new Event("joined"));
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
    const before = this.orders.get(event.oid);
    const order = { ...before, ...event, ts: before?.ts ?? event.ts };
    if (event.left > 0 && event.st !== "canceled") this.orders.set(event.oid, order);
    else this._done(order, event);
  }

  /** An order is finished: it becomes a part of the past. */
  _done(order, { seq, ts, why }) {
    this.orders.delete(order.oid);
    const { oid, sym, side, type, px, qty, cum, tif, post, stop, st } = order; // as much as the exchange itself keeps
    this._keep(this.past.done, { oid, sym, side, type, px, qty, cum, tif, post, stop, st, ts: order.ts, seq, done: ts, why });
  }

  _keep(past, item) {
    past.items.set(past.keyOf(item), item);
    if (past.items.size <= 2 * KEPT) return;
    const newest = [...past.items.values()].sort((a, b) => past.placeOf(b) - past.placeOf(a)).slice(0, KEPT);
    past.items = new Map(newest.map((one) => [past.keyOf(one), one]));
    past.next = past.placeOf(newest.at(-1)) + 1;
  }

  _on_fill(event) {
    const order = this.orders.get(event.oid);
    const now = { ...order, left: event.left, cum: event.cum, st: event.st };
    if (order && event.left > 0) this.orders.set(event.oid, now);
    else if (order) this._done(now, event);
    this._keep(this.past.fills, event);
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
