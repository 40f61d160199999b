// What is listed and what it costs, as the public channels tell it.

import { micros, text } from "./decimal.js";

/** Where orders are gathered, and a book may be crossed. */
export const GATHERING = ["pre_open", "auction"];
const OVER = ["closed", "delisted"];

/** Events: "instruments" when something was listed or closed, "state" with the symbol when one stands otherwise than before. */
export class Market extends EventTarget {
  constructor(wire) {
    super();
    this.wire = wire;
    this.instruments = new Map(); // symbol -> instrument
    this.tickers = new Map(); // symbol -> { last, bid, ask, vol, moved }
    this.states = new Map(); // symbol -> the newest push of `status`
    this.halted = false; // the whole exchange
    this.batches = new Map(); // cycle -> batch
    this.deliveries = new Map(); // symbol -> delivery
    wire.join("instruments", { name: "instruments" }, (push) => this._instruments(push));
    wire.join("status", { name: "status", symbols: "*" }, (push) => this._status(push));
    wire.join("batches", { name: "batches" }, (push) => this._settled(push, this.batches, "cycle", "batches"));
    wire.join("deliveries", { name: "deliveries" }, (push) => this._settled(push, this.deliveries, "sym", "deliveries"));
  }

  /** Follow the tickers of some symbols under a name; `tell(symbol)` at each change. Another call replaces this one. */
  follow(name, channel, tell) {
    this.wire.join(name, { name: "ticker", ...channel }, (push) => {
      this._ticker(push);
      tell(push.sym);
    });
  }

  unfollow(name) {
    this.wire.leave(name);
  }

  /** Where an instrument stands: `continuous`, `closed`, `exchange_halted`, or what else the exchange calls it. */
  stateOf(symbol) {
    const status = this.instruments.get(symbol)?.status ?? "delisted";
    if (OVER.includes(status)) return status;
    return this.halted ? "exchange_halted" : (this.states.get(symbol)?.status ?? status);
  }

  /** What a call auction would trade now: { px, qty, surplus }; null where none gathers orders, or nothing is known yet. */
  indication(symbol) {
    const newest = this.states.get(symbol);
    return newest?.ev === "indication" && GATHERING.includes(this.stateOf(symbol)) ? newest : null;
  }

  /** The instruments that can be traded, by hour, class and region. */
  open() {
    return [...this.instruments.values()].filter((one) => !OVER.includes(one.status));
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
      if (one.status === "delisted") {
        this.instruments.delete(one.sym);
        this.states.delete(one.sym);
      } else this.instruments.set(one.sym, one);
    }
    this.dispatchEvent(new Event("instruments"));
  }

  /** Why an auction was called is said once, an indication comes each second: what was said stays. */
  _status(push) {
    const before = this.states.get(push.sym);
    const why = before?.status === push.status ? (push.why ?? before.why) : push.why;
    this.states.set(push.sym, { ...push, why });
    this.halted = push.halted === true;
    this.dispatchEvent(new CustomEvent("state", { detail: push.sym }));
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

/** What people call a state of an instrument, whether it is a good one, and what it means for them. */
const STATES = {
  continuous: ["Open", "good", ""],
  pre_open: ["Pre-open", "warn", "Orders are gathered for the opening auction; nothing trades before."],
  auction: ["Auction", "warn", "A call auction: orders are gathered, and trade together at one price when it ends."],
  halted: ["Halted", "bad", "This contract is halted: nothing trades, and nothing but cancels is taken. Orders keep their places."],
  cancel_only: ["Cancel only", "bad", "Nothing trades here, and nothing but cancels is taken."],
  exchange_halted: ["Exchange halted", "bad", "The whole exchange is halted: nothing trades, and nothing but cancels is taken. Orders keep their places."],
  closed: ["Gate closed", "bad", ""],
  delisted: ["Delivered", null, ""],
};

/** The name of a state, its kind, and a sentence about it, which may be empty. */
export const stateName = (status) => STATES[status] ?? [status.replaceAll("_", " "), "bad", ""];

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
