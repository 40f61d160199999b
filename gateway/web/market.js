// What is listed and what it costs, as the public channels tell it.

import { micros, text } from "./decimal.js";

/** Events: "instruments" when something was listed or closed. */
export class Market extends EventTarget {
  constructor(wire) {
    super();
    this.wire = wire;
    this.instruments = new Map(); // symbol -> instrument
    this.tickers = new Map(); // symbol -> { last, bid, ask, vol, moved }
    this.states = new Map(); // symbol -> where it stands, of those followed
    this.batches = new Map(); // cycle -> batch
    this.deliveries = new Map(); // symbol -> delivery
    wire.join("instruments", { name: "instruments" }, (push) => this._instruments(push));
    wire.join("batches", { name: "batches" }, (push) => this._settled(push, this.batches, "cycle", "batches"));
    wire.join("deliveries", { name: "deliveries" }, (push) => this._settled(push, this.deliveries, "sym", "deliveries"));
  }

  /** Follow tickers and states of some symbols under a name; `tell(symbol)` at each change. Another call replaces this one. */
  follow(name, channel, tell) {
    this.wire.join(name, { name: "ticker", ...channel }, (push) => {
      this._ticker(push);
      tell(push.sym);
    });
    this.wire.join(`${name}-status`, { name: "status", ...channel }, (push) => {
      this.states.set(push.sym, push.halted ? "exchange_halted" : push.status);
      tell(push.sym);
    });
  }

  unfollow(name) {
    this.wire.leave(name);
    this.wire.leave(`${name}-status`);
  }

  /** Where an instrument stands: `continuous`, `closed`, or what else the exchange calls it. */
  stateOf(symbol) {
    const instrument = this.instruments.get(symbol);
    if (!instrument) return "delisted";
    return instrument.status === "continuous" ? (this.states.get(symbol) ?? "continuous") : instrument.status;
  }

  /** The instruments that can be traded, by hour, class and region. */
  open() {
    return [...this.instruments.values()].filter((one) => one.status !== "closed" && one.status !== "delisted");
  }

  /** The first microseconds of the hours that are open. */
  hours() {
    return [...new Set(this.open().map((one) => one.start))].sort((a, b) => a - b);
  }

  /** Names of all classes, or regions, in the order in which they are listed. */
  names(field) {
    return [...new Set([...this.instruments.values()].map((one) => one[field]))];
  }

  /** The open hours of one market, in order. */
  strip(gpuClass, region) {
    const found = this.open().filter((one) => one.class === gpuClass && one.region === region);
    return found.sort((a, b) => a.start - b.start);
  }

  /** The index of the newest hour of a market that has one: { px, start }. */
  newestIndex(gpuClass, region) {
    let newest = null;
    for (const item of this.deliveries.values()) {
      const [itsClass, itsRegion] = item.sym.split("-");
      if (itsClass === gpuClass && itsRegion === region && (!newest || item.start > newest.start)) {
        newest = { px: item.index, start: item.start };
      }
    }
    return newest;
  }

  _instruments(push) {
    if (push.ev === "snapshot") this.instruments.clear();
    for (const one of push.list) {
      if (one.status === "delisted") this.instruments.delete(one.sym);
      else this.instruments.set(one.sym, one);
    }
    this.dispatchEvent(new Event("instruments"));
  }

  _ticker(push) {
    const before = this.tickers.get(push.sym);
    let moved = before?.moved ?? null;
    if (before?.last != null && push.last != null && push.last !== before.last) {
      moved = Number(push.last) > Number(before.last) ? "up" : "down";
    }
    this.tickers.set(push.sym, { last: push.last, bid: push.bid, ask: push.ask, vol: push.vol, moved });
  }

  _settled(push, known, key, event) {
    if (push.ev === "snapshot") known.clear();
    for (const item of push.list) known.set(item[key], item);
    this.dispatchEvent(new Event(event));
  }
}

const STATES = { continuous: ["Open", "good"], closed: ["Gate closed", "bad"], delisted: ["Delivered", null] };

/** What people call a state of an instrument, and whether it is a good one. */
export const stateName = (status) => STATES[status] ?? [status.replaceAll("_", " "), "bad"];

/** The spread of a ticker as a decimal text; null when a side is empty. */
export function spread(ticker) {
  if (ticker?.bid == null || ticker.ask == null) return null;
  return text(micros(ticker.ask) - micros(ticker.bid));
}

/** The middle between bid and ask, in whole micros; null when a side is empty. */
export function middle(ticker) {
  if (ticker?.bid == null || ticker.ask == null) return null;
  return text((micros(ticker.ask) + micros(ticker.bid)) / 2n);
}

/** GPU-hours of so many lots. */
export const gpuHours = (instrument, lots) => lots * instrument.gpus_per_lot * instrument.hours;
