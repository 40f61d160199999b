// One contract: its price, candles, book, depth and trades.

import { Book } from "./book.js";
import { CandleChart, DepthChart } from "./charts.js";
import { change, digitsOf, dollars, grouped, price, short } from "./decimal.js";
import { $, el, keepRows, painter, press, setAttribute, setText, toast } from "./dom.js";
import { GATHERING, gpuHours, middle, spread, stateName } from "./market.js";
import * as times from "./times.js";

const LADDER_LEVELS = 10;
const LEAST_LEVELS = 6; // have their room also in a thin book
const DEPTH_LEVELS = 40;
const TAPE_ROWS = 80;
const CANDLES_KEPT = 240;
const FAST = 30; // a market that runs so many times faster than real time begins with longer candles
const LENGTHS_S = { "1m": 60, "5m": 300, "1h": 3600 };

export class Contract {
  /** `takeOver(px, side)` is called with a price that was chosen in the book. */
  constructor(market, session, takeOver) {
    this.market = market;
    this.wire = market.wire;
    this.session = session;
    this.takeOver = takeOver;
    this.symbol = null;
    this.room = LEAST_LEVELS; // levels a side that the ladder has rows for
    this.book = new Book();
    this.candles = new Map(); // start in seconds -> candle
    this.length = null;
    this.trades = [];
    this.candleChart = new CandleChart($("candle-chart"));
    this.depthChart = new DepthChart($("depth-chart"));
    this.paintBook = painter(() => this._paintBook(), 60);
    this.paintHead = painter(() => this._paintHead(), 100);
    this.paintTape = painter(() => this._paintTape(), 100, $("contract-tape"));
    for (const button of document.querySelectorAll("[data-candles]")) {
      button.addEventListener("click", () => this._chooseCandles(button.dataset.candles));
    }
    for (const side of ["asks", "bids"]) $(`ladder-${side}`).append(...Array.from({ length: LADDER_LEVELS }, () => this._ladderRow(side)));
    market.addEventListener("instruments", () => this.symbol && this._listed());
    market.addEventListener("state", (event) => event.detail === this.symbol && this._stands());
    market.addEventListener("deliveries", () => this.symbol && this.paintHead());
    session.addEventListener("change", () => this.symbol && this.paintBook());
  }

  get instrument() {
    return this.known;
  }

  show(symbol) {
    this.hide();
    this.symbol = symbol;
    this.room = LEAST_LEVELS;
    this.known = null;
    this._listed();
    this._join();
    this.paintHead();
    this.paintBook();
  }

  hide() {
    if (this.symbol) for (const name of ["l2", "trades", "candles", "index"]) this.wire.leave(`contract-${name}`);
    this.market.unfollow("contract");
    this.symbol = null;
    this.book.clear();
    this.trades = [];
    this.candles.clear();
    this.candleChart.clear();
    this.depthChart.clear();
    this.index = null;
    this.paintTape();
  }

  /** Once a second. */
  tick() {
    if (this.known) setText($("contract-gate"), ["closed", "delisted"].includes(this._state()) ? "·" : times.until(this.known.gate, this.wire.marketUs()));
  }

  _join() {
    const symbols = [this.symbol];
    this.market.follow("contract", { symbols }, () => this.paintHead());
    this.wire.join("contract-l2", { name: "l2", symbols, depth: 100 }, (push) => this._takeBook(push), (error) => this._refused(error));
    this.wire.join("contract-trades", { name: "trades", symbols }, (push) => this._takeTrades(push));
    this.wire.join("contract-index", { name: "index", symbols }, (push) => {
      this.index = push.px ? push : null;
      this.paintHead();
    });
    this._chooseCandles(this.length ?? (this.wire.speed > FAST ? "5m" : "1m"));
  }

  _chooseCandles(length) {
    this.length = length;
    const buttons = [...document.querySelectorAll("[data-candles]")];
    press(buttons, buttons.find((button) => button.dataset.candles === length));
    this.candles.clear();
    this.candleChart.clear();
    this.candleChart.length_s = LENGTHS_S[length];
    this.wire.join("contract-candles", { name: `candles.${length}`, symbols: [this.symbol] }, (push) => this._takeCandles(push));
  }

  _listed() {
    const found = this.market.instruments.get(this.symbol);
    if (found && !this.known) {
      this.known = found;
      for (const chart of [this.candleChart, this.depthChart]) chart.digits = digitsOf(found.tick);
      this._terms(found);
      document.dispatchEvent(new CustomEvent("contract", { detail: found }));
    }
    if (found) this.known = found;
    this._hours();
    this.paintHead();
    this.tick();
  }

  _state() {
    return this.market.stateOf(this.symbol);
  }

  /** Where it stands has changed, or an auction said what it would trade, or what it did. */
  _stands() {
    const newest = this.market.states.get(this.symbol);
    if (newest.ev === "auction") toast(newest.qty ? `${this.symbol}: the auction traded ${grouped(newest.qty)} lots at ${this._priced(newest.px)}.` : `${this.symbol}: the auction traded nothing.`);
    this.paintHead();
    this.paintBook();
  }

  _priced(px) {
    return price(px, this.known ? digitsOf(this.known.tick) : 3);
  }

  _refused(error) {
    setText($("book-note"), error.message);
  }

  // --- What comes ---------------------------------------------------------------------------------------------------

  _takeBook(push) {
    if (!this.book.take(push)) {
      this.book.clear();
      this.wire.renew("contract-l2");
    }
    this.paintBook();
  }

  _takeTrades(push) {
    if (push.ev === "snapshot") this.trades = [];
    this.trades = [...push.t.toReversed(), ...this.trades].slice(0, TAPE_ROWS);
    this.paintTape();
  }

  _takeCandles(push) {
    if (push.ch !== `candles.${this.length}`) return;
    if (push.ev === "snapshot") this.candles.clear();
    for (const candle of push.list) if (candle.c != null) this.candles.set(candle.start / 1e6, candle);
    for (const start of this.candles.keys()) {
      if (this.candles.size <= CANDLES_KEPT) break;
      this.candles.delete(start);
    }
    const rows = [...this.candles.entries()].sort((a, b) => a[0] - b[0]);
    if (!rows.length) return;
    const column = (name) => rows.map(([, candle]) => Number(candle[name]));
    this.candleChart.show([rows.map(([start]) => start), column("o"), column("h"), column("l"), column("c"), column("vol")]);
    const last = rows.at(-1)[1];
    setAttribute($("candle-chart"), "aria-label", `Candles of ${this.symbol}: ${rows.length}, the last one closes at ${last.c}`);
  }

  // --- What is shown ------------------------------------------------------------------------------------------------

  _hours() {
    const strip = this.known ? this.market.strip(this.known.class, this.known.region) : [];
    keepRows($("contract-hours"), strip, (one) => one.sym, (one) => {
      const radio = el("input", { type: "radio", name: "contract-hour", change: () => (location.hash = `#/book/${one.sym}`) });
      return el("label", {}, radio, times.span(one.start, one.hours), el("small", {}, times.day(one.start)));
    }, (label, one) => {
      const radio = label.querySelector("input");
      if (radio.checked === (one.sym === this.symbol)) return;
      radio.checked = one.sym === this.symbol;
      if (radio.checked) intoSight(label);
    });
  }

  _terms(one) {
    const percent = (ppm) => `${Number((ppm / 10000).toFixed(3))} %`;
    const terms = [
      ["A lot", `${one.gpus_per_lot} × ${one.class}, ${one.region}, ${one.hours} h`],
      ["Delivery", `${times.day(one.start)} ${times.span(one.start, one.hours)}`],
      ["Last trade before", times.moment(one.gate)],
      ["Tick", `$${one.tick} a GPU-hour, $${one.lot_tick} a lot`],
      ["Highest price", dollars(one.max_px)],
      ["Reference price", one.ref_px],
      ["Taker pays", percent(one.taker_ppm)],
      ["Maker gets", percent(one.rebate_ppm)],
      ["Provider's bond", percent(one.bond_ppm)],
    ];
    $("terms").replaceChildren(...terms.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
  }

  _paintHead() {
    const [one, ticker] = [this.known, this.market.tickers.get(this.symbol)];
    setText($("contract-title"), this.symbol ?? "·");
    if (!one) return;
    const digits = digitsOf(one.tick);
    const moved = change(one.ref_px, ticker?.last);
    const what = `${one.gpus_per_lot} × ${one.class} in ${one.region}, ${times.day(one.start)} ${times.span(one.start, one.hours)} UTC`;
    setText($("contract-what"), what);
    setText($("contract-last"), price(ticker?.last ?? one.ref_px, digits));
    setAttribute($("contract-last"), "data-tick", ticker?.moved);
    setText($("contract-change"), moved.text);
    setAttribute($("contract-change"), "class", moved.trend ?? "dim");
    setText($("contract-bid"), price(ticker?.bid, digits));
    setText($("contract-ask"), price(ticker?.ask, digits));
    setText($("contract-spread"), GATHERING.includes(this._state()) ? "·" : price(spread(ticker), digits));
    setText($("contract-volume"), ticker ? short(gpuHours(one, ticker.vol)) : "·");
    document.dispatchEvent(new CustomEvent("contract-state", { detail: this._state() }));
    this._paintState();
    this._paintIndex(one, digits);
  }

  _paintState() {
    const [name, kind, sentence] = stateName(this._state());
    setText($("contract-state"), name);
    setAttribute($("contract-state"), "data-kind", kind);
    const why = this.market.states.get(this.symbol)?.why === "collar" && this._state() === "auction" ? " It was called because a trade would have been too far from the last one." : "";
    setText($("contract-notice"), sentence + why);
    setAttribute($("contract-notice"), "data-kind", kind);
    setAttribute($("contract-notice"), "hidden", sentence ? null : "");
    const now = this.market.indication(this.symbol);
    setAttribute($("contract-auction-figure"), "hidden", now ? null : "");
    if (!now) return;
    const rest = now.surplus ? `, ${grouped(Math.abs(now.surplus))} more ${now.surplus > 0 ? "wanted" : "offered"}` : "";
    setText($("contract-auction"), now.px == null ? "nothing" : `${grouped(now.qty)} at ${this._priced(now.px)}${rest}`);
  }

  _paintIndex(one, digits) {
    const newest = this.index ? { px: this.index.px, start: one.start } : this.market.newestIndex(one.class, one.region);
    setText($("contract-index-name"), newest ? `Index of ${times.hour(newest.start)}` : "Index");
    setText($("contract-index"), newest ? price(newest.px, digits) : "·");
  }

  _ladderRow(side) {
    const button = el("button", { type: "button", tabindex: "-1", click: () => row.px && this.takeOver(row.px, side === "asks" ? "buy" : "sell") });
    const bar = el("i", { class: "wash" }); // a box without children: the cells of a row need no new style when it grows
    const row = el("tr", {}, el("td", {}, bar, button), el("td"), el("td"));
    return Object.assign(row, { bar, button });
  }

  _paintBook() {
    const { bids, asks } = this.book.levels();
    const own = new Set();
    for (const order of this.session.orders.values()) if (order.sym === this.symbol) own.add(`${order.side}${order.px}`);
    const sums = (levels) => {
      let sum = 0;
      return levels.map((level) => ({ ...level, sum: (sum += level.qty) }));
    };
    const [nearBids, nearAsks] = [sums(bids.slice(0, LADDER_LEVELS)), sums(asks.slice(0, LADDER_LEVELS))];
    const most = Math.max(nearBids.at(-1)?.sum ?? 0, nearAsks.at(-1)?.sum ?? 0, 1);
    const rows = (side) => [...$(`ladder-${side}`).rows];
    // Room once taken is kept: nothing around the ladder jumps, and no chart is drawn anew, when a level comes or goes.
    this.room = Math.max(this.room, nearBids.length, nearAsks.length);
    for (const [side, levels, verb] of [[rows("asks").toReversed(), nearAsks, "sell"], [rows("bids"), nearBids, "buy"]]) {
      side.forEach((row, at) => {
        this._paintLevel(row, levels[at], most, own, verb);
        setAttribute(row, "hidden", at < this.room ? null : "");
      });
    }
    this._paintMiddle(bids[0], asks[0]);
    this._paintDepth(bids, asks);
  }

  _paintLevel(row, level, most, own, side) {
    const digits = this.known ? digitsOf(this.known.tick) : 3;
    row.px = level?.px;
    setText(row.button, level ? price(level.px, digits) : "");
    setText(row.cells[1], level ? grouped(level.qty) : "");
    setText(row.cells[2], level ? grouped(level.sum) : "");
    setAttribute(row.button, "tabindex", level ? "0" : "-1");
    setAttribute(row.button, "aria-label", level ? `${side === "sell" ? "Ask" : "Bid"} ${price(level.px, digits)}` : null);
    setAttribute(row, "aria-hidden", level ? null : "true");
    setAttribute(row, "data-own", level && own.has(`${side}${level.px}`) ? "" : null);
    const fill = level ? `${Math.round((level.sum * 100) / most)}%` : "0%";
    if (row.fill !== fill) row.bar.style.width = row.fill = fill;
  }

  _paintMiddle(bid, ask) {
    const digits = this.known ? digitsOf(this.known.tick) : 3;
    const both = bid && ask ? { bid: bid.px, ask: ask.px } : null;
    const auction = this.market.indication(this.symbol);
    if (GATHERING.includes(this._state())) {
      setText($("ladder-middle"), price(auction?.px, digits));
      setText($("ladder-spread"), auction?.px != null ? `auction, ${grouped(auction.qty)} lots` : "auction");
    } else {
      setText($("ladder-middle"), both ? price(middle(both), digits) : "·");
      setText($("ladder-spread"), both ? `spread ${price(spread(both), digits)}` : "");
    }
    setText($("book-note"), this.symbol && !this.book.seq ? "loading" : !bid && !ask ? "empty" : "");
  }

  _paintDepth(bids, asks) {
    const near = [bids.slice(0, DEPTH_LEVELS), asks.slice(0, DEPTH_LEVELS)];
    if (!near[0].length && !near[1].length) {
      this.depthChart.clear();
      setText($("depth-note"), "");
      setAttribute($("depth-chart"), "aria-label", "Depth chart: the book is empty");
      return;
    }
    this.depthChart.show(depthColumns(...near));
    const sums = near.map((levels) => levels.reduce((sum, level) => sum + level.qty, 0));
    setText($("depth-note"), `${short(sums[0])} lots wanted, ${short(sums[1])} offered`);
    setAttribute($("depth-chart"), "aria-label", `Depth of ${this.symbol}: ${sums[0]} lots wanted, ${sums[1]} offered within ${DEPTH_LEVELS} levels`);
  }

  _paintTape() {
    const digits = this.known ? digitsOf(this.known.tick) : 3;
    keepRows($("contract-tape").tBodies[0], this.trades, (trade) => trade.tid, (trade) => el("tr", {}, el("td", { class: "dim" }, times.clock(trade.ts)),
      el("td", { class: `num ${trade.side === "buy" ? "up" : "down"}` }, `${trade.side === "buy" ? "▲" : "▼"} ${price(trade.px, digits)}`), el("td", { class: "num" }, grouped(trade.qty))));
    return this.trades.length > 0;
  }
}

/** Scroll a strip that is wider than the screen, and nothing else, so that this part of it is in the middle. */
function intoSight(part) {
  requestAnimationFrame(() => {
    const strip = part.parentElement;
    if (strip) strip.scrollLeft = part.offsetLeft - strip.offsetLeft - (strip.clientWidth - part.offsetWidth) / 2;
  });
}

/** Prices in order, and what each side has at that price or better; the sides overlap while orders are gathered. */
function depthColumns(bids, asks) {
  const prices = [...new Set([...bids, ...asks].map((level) => level.micros))].sort((a, b) => a - b);
  const reach = (levels, sign) => prices.map((px) => {
    if (!levels.length || sign * (levels[0].micros - px) < 0 || sign * (px - levels.at(-1).micros) < 0) return null;
    return levels.reduce((sum, level) => (sign * (level.micros - px) >= 0 ? sum + level.qty : sum), 0);
  });
  return [prices.map((px) => px / 1e6), reach(bids, 1), reach(asks, -1)];
}
