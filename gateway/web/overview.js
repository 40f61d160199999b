// The front page: the market as a map of classes by regions, or as a list; the forward curve; the trades as they happen.

import { CurveChart } from "./charts.js";
import { change, digitsOf, grouped, micros, price, short } from "./decimal.js";
import { $, el, keepRows, painter, press, setAttribute, setText } from "./dom.js";
import { gpuHours, middle, spread, stateName } from "./market.js";
import * as times from "./times.js";

const PAINT_PAUSE_MS = 200; // about as fast as an eye reads a number
const PAINTED_AT_ONCE = 6; // contracts in a frame; the others in the next, so that no frame is late
const FIGURES_PAUSE_MS = 1000;
const TAPE_ROWS = 60;
const LIST_ROWS = 400;

export class Overview {
  constructor(market) {
    this.market = market;
    this.wire = market.wire;
    this.shown = false;
    this.hour = null;
    this.asList = false;
    this.cells = new Map(); // symbol -> the parts of its cell
    this.rows = new Map(); // symbol -> the parts of its row in the list
    this.dirty = new Set();
    this.curve = new CurveChart($("curve-chart"));
    this.curveMarket = null; // [class, region]
    this.tape = [];
    this.paint = painter(() => this._paint(), PAINT_PAUSE_MS);
    this.paintRest = painter(() => this._paint());
    this.paintTape = painter(() => this._paintTape(), PAINT_PAUSE_MS, $("tape"));
    this.paintFigures = painter(() => this._figures(), FIGURES_PAUSE_MS);
    market.addEventListener("instruments", () => this.shown && this._arrange());
    market.addEventListener("state", (event) => {
      this.dirty.add(event.detail);
      if (this.shown) this.paint();
    });
    $("as-map").addEventListener("click", () => this._showAs(false));
    $("as-list").addEventListener("click", () => this._showAs(true));
    for (const id of ["list-class", "list-region", "list-hour"]) $(id).addEventListener("change", () => this._arrange());
    for (const id of ["curve-class", "curve-region"]) $(id).addEventListener("change", () => this._chooseCurve());
  }

  show() {
    this.shown = true;
    this._arrange();
  }

  hide() {
    this.shown = false;
    this.market.unfollow("overview");
    this.market.unfollow("curve");
    this.wire.leave("tape");
    this.followed = this.curveKey = null;
  }

  /** Once a second. */
  tick() {
    if (!this.shown || this.hour === null) return;
    const gates = this.market.open().filter((one) => one.start === this.hour);
    setText($("figure-gate"), gates.length ? times.until(gates[0].gate, this.wire.marketUs()) : "·");
  }

  // --- What is shown ------------------------------------------------------------------------------------------------

  _showAs(asList) {
    this.asList = asList;
    press([$("as-map"), $("as-list")], asList ? $("as-list") : $("as-map"));
    $("map-panel").hidden = asList;
    $("list-panel").hidden = !asList;
    this._arrange();
  }

  _arrange() {
    const hours = this.market.hours();
    if (!hours.includes(this.hour)) this.hour = hours[0] ?? null;
    this._hours(hours);
    this._choices();
    const instruments = this.asList ? this._list() : this._map();
    this._follow(instruments);
    this._figures();
    this._arrangeCurve();
    this.tick();
  }

  _hours(hours) {
    const nowUs = this.wire.marketUs();
    keepRows($("hours-strip"), hours, (start) => start, (start) => this._hourChoice(start), (label, start) => {
      const radio = label.querySelector("input");
      if (radio.checked !== (start === this.hour)) radio.checked = start === this.hour;
      setText(label.querySelector("small"), times.day(start) + (start < nowUs ? " now" : ""));
    });
  }

  _hourChoice(start) {
    const change = () => {
      this.hour = start;
      this._arrange();
    };
    return el("label", {}, el("input", { type: "radio", name: "hour", value: start, change }), times.span(start, 1), el("small"));
  }

  _choices() {
    const fill = (select, values, keep) => {
      const wanted = values.join();
      if (select.filled === wanted) return;
      select.filled = wanted;
      const chosen = select.value;
      select.replaceChildren(...(keep ? [el("option", { value: "" }, "all")] : []), ...values.map((value) => el("option", {}, value)));
      select.value = values.includes(chosen) ? chosen : keep ? "" : (values[0] ?? "");
    };
    const [classes, regions] = [this.market.names("class"), this.market.names("region")];
    fill($("list-class"), classes, true);
    fill($("list-region"), regions, true);
    fill($("curve-class"), classes, false);
    fill($("curve-region"), regions, false);
    const hours = this.market.hours().map((start) => `${times.day(start)} ${times.hour(start)}`);
    fill($("list-hour"), hours, true);
  }

  _follow(instruments) {
    const symbols = instruments.map((one) => one.sym);
    const wanted = symbols.join();
    if (this.followed === wanted) return;
    this.followed = wanted;
    if (!symbols.length) {
      this.market.unfollow("overview");
      return;
    }
    this.market.follow("overview", { symbols }, (symbol) => {
      this.dirty.add(symbol);
      this.paint();
    });
  }

  // --- The map ------------------------------------------------------------------------------------------------------

  _map() {
    const listed = this.market.open().filter((one) => one.start === this.hour);
    const [classes, regions] = ["class", "region"].map((field) => [...new Set(listed.map((one) => one[field]))]);
    const bySpot = new Map(listed.map((one) => [`${one.class}-${one.region}`, one]));
    const key = `${this.hour}:${[...bySpot.values()].map((one) => one.sym)}`;
    $("map-empty").hidden = listed.length > 0;
    if (this.mapKey === key) return listed;
    this.mapKey = key;
    this.cells.clear();
    const table = $("map");
    table.style.setProperty("--columns", regions.length);
    table.tHead.replaceChildren(el("tr", {}, el("td", { class: "corner" }), ...regions.map((region) => el("th", { scope: "col" }, region))));
    table.tBodies[0].replaceChildren(...classes.map((name) => this._mapRow(name, regions, bySpot)));
    for (const one of listed) this.dirty.add(one.sym);
    this.paint();
    return listed;
  }

  _mapRow(name, regions, bySpot) {
    const first = regions.map((region) => bySpot.get(`${name}-${region}`)).find(Boolean);
    const head = el("th", { scope: "row" }, name, el("small", {}, first.gpus_per_lot > 1 ? `${first.gpus_per_lot} GPUs a lot` : "1 GPU a lot"));
    const cells = regions.map((region) => {
      const instrument = bySpot.get(`${name}-${region}`);
      return el("td", {}, instrument ? this._cell(instrument) : el("span", { class: "cell none" }, el("span", { class: "hidden" }, "not listed")));
    });
    return el("tr", {}, head, ...cells);
  }

  _cell(instrument) {
    const parts = { instrument, digits: digitsOf(instrument.tick), last: el("b", {}, "·"), change: el("i"), spread: el("small"), volume: el("small") };
    parts.cell = el("a", { class: "cell", href: `#/book/${instrument.sym}` }, el("span", { class: "hidden" }, `${instrument.class} in ${instrument.region}: `), parts.last, parts.change, parts.spread, parts.volume);
    this.cells.set(instrument.sym, parts);
    return parts.cell;
  }

  _paintCell(parts, ticker) {
    const { instrument, digits } = parts;
    const shown = ticker?.last ?? middle(ticker);
    const moved = change(instrument.ref_px, shown);
    const gap = spread(ticker);
    setText(parts.last, price(shown ?? instrument.ref_px, digits));
    setText(parts.change, moved.text);
    const state = this._state(parts.spread, instrument.sym);
    setText(parts.spread, state || (gap === null ? "no quotes" : `spread ${price(gap, digits)}`));
    setText(parts.volume, ticker?.vol ? `${short(gpuHours(instrument, ticker.vol))} h` : "");
    setAttribute(parts.cell, "data-trend", moved.trend);
    setAttribute(parts.cell, "data-quoted", ticker?.last == null ? "" : null);
  }

  /** Where a contract stands, in the place of its spread: empty when it trades. */
  _state(node, symbol) {
    const [name, kind] = stateName(this.market.stateOf(symbol));
    setAttribute(node, "data-kind", kind === "good" ? null : kind);
    return kind === "good" ? "" : name;
  }

  // --- The list -----------------------------------------------------------------------------------------------------

  _list() {
    const [gpuClass, region, hour] = ["list-class", "list-region", "list-hour"].map((id) => $(id).value);
    const matching = this.market.open().filter((one) =>
      (!gpuClass || one.class === gpuClass) && (!region || one.region === region) && (!hour || `${times.day(one.start)} ${times.hour(one.start)}` === hour));
    matching.sort((a, b) => a.start - b.start || a.class.localeCompare(b.class) || a.region.localeCompare(b.region));
    const shown = matching.slice(0, LIST_ROWS);
    const all = matching.length > shown.length ? ` of ${matching.length}, choose a class, region or hour for the rest` : "";
    setText($("list-count"), `${shown.length} contracts${all}`);
    this.rows.clear();
    keepRows($("list").tBodies[0], shown, (one) => one.sym, (one) => this._row(one), (row, one) => {
      this.rows.set(one.sym, row.parts);
      this.dirty.add(one.sym);
    });
    this.paint();
    return shown;
  }

  _row(instrument) {
    const parts = { instrument, digits: digitsOf(instrument.tick) };
    const cells = ["bid", "ask", "last", "change", "spread", "volume"].map((name) => (parts[name] = cell({ class: "num" })));
    const row = el("tr", { role: "row" }, cell({}, el("a", { href: `#/book/${instrument.sym}` }, instrument.sym)), ...cells, cell({ class: "num dim" }, times.moment(instrument.gate)));
    row.parts = parts;
    // A row out of sight is brought up to date when it comes into it: what nobody sees costs nothing.
    row.addEventListener("contentvisibilityautostatechange", ({ skipped }) => {
      parts.isSkipped = skipped;
      this.dirty.add(instrument.sym);
      this.paint();
    });
    return row;
  }

  _paintRow(parts, ticker) {
    const { instrument, digits } = parts;
    const moved = change(instrument.ref_px, ticker?.last);
    const gap = spread(ticker);
    setText(parts.bid, price(ticker?.bid, digits));
    setText(parts.ask, price(ticker?.ask, digits));
    setText(parts.last, price(ticker?.last, digits));
    setText(parts.change, moved.text);
    setText(parts.spread, this._state(parts.spread, instrument.sym) || price(gap, digits));
    setText(parts.volume, ticker ? short(gpuHours(instrument, ticker.vol)) : "·");
    setAttribute(parts.change, "class", `num ${moved.trend ?? "dim"}`);
    setAttribute(parts.last, "data-tick", ticker?.moved);
  }

  _paint() {
    const parts = this.asList ? this.rows : this.cells;
    if (this.dirty.size) this.paintFigures();
    let left = PAINTED_AT_ONCE;
    for (const symbol of this.dirty) {
      const found = parts.get(symbol);
      this.dirty.delete(symbol);
      if (!found || found.isSkipped) continue;
      if (this.asList) this._paintRow(found, this.market.tickers.get(symbol));
      else this._paintCell(found, this.market.tickers.get(symbol));
      if (--left === 0) break;
    }
    if (this.dirty.size) this.paintRest();
  }

  _figures() {
    const open = this.market.open();
    let hours = 0;
    let value = 0n;
    for (const one of open) {
      const ticker = one.start === this.hour && this.market.tickers.get(one.sym);
      if (!ticker?.vol) continue;
      hours += gpuHours(one, ticker.vol);
      value += micros(ticker.last ?? "0") * BigInt(gpuHours(one, ticker.vol));
    }
    setText($("figure-books"), grouped(open.length));
    setText($("figure-volume"), `${short(hours)} GPU-h`);
    setText($("figure-value"), `$${short(Number(value / 1000000n))}`);
  }

  // --- The curve and the trades of one market -----------------------------------------------------------------------

  _chooseCurve() {
    this.curveMarket = [$("curve-class").value, $("curve-region").value];
    this._arrangeCurve();
  }

  _arrangeCurve() {
    if ($("curve-class").value) this.curveMarket ??= [$("curve-class").value, $("curve-region").value];
    if (!this.curveMarket) return;
    const [gpuClass, region] = this.curveMarket;
    const strip = this.market.strip(gpuClass, region);
    const key = `${gpuClass}-${region}:${strip.map((one) => one.start)}`;
    if (this.curveKey === key) return;
    const isOther = !this.curveKey?.startsWith(`${gpuClass}-${region}:`);
    this.curveKey = key;
    this.strip = strip;
    this.drawCurve = painter(() => this._paintCurve(), PAINT_PAUSE_MS);
    if (!isOther) {
      this.drawCurve();
      return;
    }
    this.curve.clear();
    setText($("tape-market"), `${gpuClass} ${region}`);
    this.tape = [];
    this.paintTape();
    this.market.follow("curve", { class: gpuClass, region }, () => this.drawCurve());
    this.wire.join("tape", { name: "trades", class: gpuClass, region }, (push) => this._trades(push));
  }

  _paintCurve() {
    const rows = this.strip.map((one) => ({ one, ticker: this.market.tickers.get(one.sym) }));
    if (!rows.some(({ ticker }) => ticker?.bid ?? ticker?.ask ?? ticker?.last)) {
      this.curve.clear();
      return;
    }
    const digits = (this.curve.digits = digitsOf(rows[0].one.tick));
    const column = (pick) => rows.map(({ one, ticker }) => (pick(ticker, one) == null ? null : Number(pick(ticker, one))));
    this.curve.show([
      rows.map(({ one }) => one.start / 1e6), column((t, one) => t && gpuHours(one, t.vol)), column((t) => t?.bid), column((t) => t?.ask), column((t) => t?.last),
    ]);
    const known = rows.filter(({ ticker }) => middle(ticker) !== null);
    const sentence = known.length ? `, from ${price(middle(known[0].ticker), digits)} at ${times.hour(known[0].one.start)} to ${price(middle(known.at(-1).ticker), digits)} at ${times.hour(known.at(-1).one.start)}` : "";
    setAttribute($("curve-chart"), "aria-label", `Forward curve of ${this.curveMarket.join(" ")}: ${rows.length} hours${sentence}`);
    if ($("curve-table").closest("details").open) this._curveTable(rows, digits);
  }

  _curveTable(rows, digits) {
    keepRows($("curve-table").tBodies[0], rows, ({ one }) => one.sym, ({ one }) => el("tr", {}, el("td", {}, el("a", { href: `#/book/${one.sym}` }, times.moment(one.start))), ...Array.from({ length: 4 }, () => el("td", { class: "num" }))), (row, { one, ticker }) => {
      const values = [price(ticker?.bid, digits), price(ticker?.ask, digits), price(ticker?.last, digits), ticker ? short(gpuHours(one, ticker.vol)) : "·"];
      values.forEach((value, at) => setText(row.cells[at + 1], value));
    });
  }

  _trades(push) {
    const instrument = this.market.instruments.get(push.sym);
    const digits = instrument ? digitsOf(instrument.tick) : 3;
    const start = instrument?.start;
    const fresh = push.t.map((trade) => ({ ...trade, key: `${push.sym}:${trade.tid}`, digits, start, sym: push.sym }));
    if (push.ev === "snapshot") this.tape = this.tape.filter((trade) => trade.sym !== push.sym);
    this.tape = [...fresh, ...this.tape].sort((a, b) => b.tid - a.tid).slice(0, TAPE_ROWS);
    this.paintTape();
  }

  _paintTape() {
    keepRows($("tape").tBodies[0], this.tape, (trade) => trade.key, (trade) => el("tr", {},
      el("td", { class: "dim" }, times.clock(trade.ts)), el("td", {}, trade.start ? times.hour(trade.start) : ""),
      el("td", { class: `num ${trade.side === "buy" ? "up" : "down"}` }, `${trade.side === "buy" ? "▲" : "▼"} ${price(trade.px, trade.digits)}`), el("td", { class: "num" }, short(trade.qty))));
    return this.tape.length > 0;
  }
}

const cell = (properties, ...children) => el("td", { role: "cell", ...properties }, ...children);
