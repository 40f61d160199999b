// The account's own: orders, positions, fills, statements, money.

import { dollars, grouped, micros, price, text, digitsOf, usd } from "./decimal.js";
import { $, download, el, keepRows, painter, setText, toast } from "./dom.js";
import { gpuHours } from "./market.js";
import * as times from "./times.js";

const TABS = ["orders", "positions", "fills", "done", "statements"];
const MONEY = [
  ["cash", "Free cash"], ["held", "Held by orders"], ["escrow", "Escrow"], ["bond", "Bond"], ["fees_due", "Fees due"], ["rebate", "Rebate so far"],
];

export class Desk {
  /** `check(text)` is called with a proof that is to be checked. */
  constructor(session, market, check) {
    this.session = session;
    this.market = market;
    this.check = check;
    this.chosen = "orders";
    this.paint = painter(() => this._paint(), 100);
    session.addEventListener("change", () => {
      this._followPositions();
      this.paint();
    });
    session.addEventListener("end", () => this.paint());
    session.addEventListener("joined", () => this._loadPast(false));
    session.addEventListener("fill", (event) => this._tellFill(event.detail));
    session.addEventListener("delivery", (event) => this._tellDelivery(event.detail));
    market.addEventListener("batches", () => this.session.account !== null && this.loadStatements());
    $("cancel-all").addEventListener("click", () => this._do(session.cancelAll(), (result) => `${result.canceled} cancelled.`));
    for (const name of ["fills", "done"]) $(`${name}-older`).addEventListener("click", () => this._load(name, true));
    for (const name of TABS) $(`tab-${name}`).addEventListener("click", () => this._choose(name));
    document.querySelector("#desk [role=tablist]").addEventListener("keydown", (event) => this._keys(event));
  }

  async loadStatements() {
    try {
      const { statements } = await this.session.statements();
      this._statements(statements);
    } catch (error) {
      setText($("statements-empty"), error.message);
    }
  }

  async _loadPast() {
    await Promise.all(["fills", "done"].map((name) => this._load(name, false)));
  }

  async _load(name, isMore) {
    try {
      await this.session.loadPast(name, isMore);
    } catch (error) {
      setText($(`${name}-empty`), error.message);
    }
  }

  // --- Tabs ---------------------------------------------------------------------------------------------------------

  _choose(chosen) {
    for (const name of TABS) {
      const tab = $(`tab-${name}`);
      tab.setAttribute("aria-selected", String(name === chosen));
      tab.tabIndex = name === chosen ? 0 : -1;
      $(`pane-${name}`).hidden = name !== chosen;
    }
    this.chosen = chosen;
    this.paint();
    if (chosen === "statements") this.loadStatements();
  }

  _keys(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const at = TABS.findIndex((name) => $(`tab-${name}`) === event.target);
    const next = TABS[(at + step + TABS.length) % TABS.length];
    this._choose(next);
    $(`tab-${next}`).focus();
  }

  // --- Telling ------------------------------------------------------------------------------------------------------

  _tellFill(fill) {
    toast(`${fill.side === "buy" ? "Bought" : "Sold"} ${fill.qty} ${fill.sym} at ${fill.px}`);
  }

  _tellDelivery(event) {
    const what = event.what === "due" ? (event.role === "provider" ? "to deliver" : "to receive") : event.role === "provider" ? "delivered" : "received";
    toast(`${event.sym}: ${event.lots} lots ${what}`);
  }

  async _do(request, words) {
    try {
      toast(words(await request));
    } catch (error) {
      toast(error.message);
    }
  }

  _followPositions() {
    const symbols = [...this.session.positions.keys()].filter((symbol) => this.market.instruments.has(symbol)).sort();
    const wanted = symbols.join();
    if (this.followed === wanted) return;
    this.followed = wanted;
    if (symbols.length) this.market.follow("positions", { symbols }, () => this.paint());
    else this.market.unfollow("positions");
  }

  // --- Painting -----------------------------------------------------------------------------------------------------

  _paint() {
    const { orders, positions, past, balances, account } = this.session;
    setText($("account-note"), account === null ? "Not logged on." : `This key may ${this.session.scopes.join(" and ")}.`);
    setText($("account-title"), account ?? "Account");
    $("account-locked").hidden = account !== null;
    $("balances").replaceChildren(...(balances ? MONEY.map(([name, label]) => el("div", {}, el("dt", {}, label), el("dd", {}, `${usd(balances[name])}`))) : []));
    const shown = { orders: [...orders.values()], positions: [...positions.values()], fills: newest(past.fills), done: newest(past.done) };
    if (this.chosen in shown) this[`_${this.chosen}`](shown[this.chosen]);
    for (const [name, items] of Object.entries(shown)) {
      $(`${name}-empty`).hidden = items.length > 0;
      $(name).hidden = items.length === 0;
    }
    for (const name of ["orders", "positions"]) setText($(`count-${name}`), String(shown[name].length || ""));
    for (const name of ["fills", "done"]) $(`${name}-older`).hidden = !past[name].next;
    $("cancel-all").disabled = !orders.size;
  }

  _price(symbol, px) {
    const instrument = this.market.instruments.get(symbol);
    return price(px, instrument ? digitsOf(instrument.tick) : 3);
  }

  _link(symbol) {
    return el("td", {}, el("a", { href: `#/book/${symbol}` }, symbol));
  }

  _orders(orders) {
    keepRows($("orders").tBodies[0], orders, (order) => order.oid, (order) => this._orderRow(order), (row, order) => {
      setText(row.cells[1], order.side);
      row.cells[1].className = order.side === "buy" ? "up" : "down";
      if (row.isEdited) return;
      setText(row.cells[2], this._price(order.sym, order.px));
      setText(row.cells[3], grouped(order.left));
      setText(row.cells[4], grouped(order.qty));
      setText(row.cells[5], this._terms(order));
    });
  }

  _orderRow(order) {
    const cancel = el("button", { type: "button", "aria-label": `Cancel the order to ${order.side} ${order.sym}`, click: () => this._do(this.session.cancel(order.oid), () => `${order.sym}: cancelled.`) }, "Cancel");
    const amend = el("button", { type: "button", "aria-label": `Amend the order to ${order.side} ${order.sym}`, click: () => this._edit(row, order.oid) }, "Amend");
    const actions = el("td", {}, el("div", { class: "actions" }, amend, cancel));
    const row = el("tr", {}, this._link(order.sym), el("td"), el("td", { class: "num" }), el("td", { class: "num" }), el("td", { class: "num" }), el("td", { class: "dim" }), el("td", { class: "dim" }, times.clock(order.ts)), actions);
    row.buttons = actions.firstChild;
    return row;
  }

  /** What an order is beyond a price and a quantity. */
  _terms(order) {
    const words = [
      order.stop != null && (order.st === "waiting" ? `waits for ${this._price(order.sym, order.stop)}` : `stop ${this._price(order.sym, order.stop)}`),
      ["market", "ioc", "fok"].find((name) => [order.type, order.tif].includes(name)),
      order.expire != null && `until ${times.moment(order.expire)}`,
      order.slide ? "slides" : order.post && "post only",
      order.show != null && `shows ${grouped(order.show)}`,
      order.reduce_only && "reduces",
    ];
    return words.filter(Boolean).join(", ");
  }

  /** Price, stop and total become inputs, the buttons become save and back. */
  _edit(row, oid) {
    const order = this.session.orders.get(oid);
    if (!order || row.isEdited) return;
    row.isEdited = true;
    const buttons = [...row.buttons.children];
    const px = el("input", { value: order.px, inputmode: "decimal", "aria-label": "New price" });
    const qty = el("input", { value: order.qty, inputmode: "numeric", "aria-label": "New total, fills included" });
    const stop = el("input", { value: order.stop, inputmode: "decimal", "aria-label": "New stop" });
    const [isWaiting, isPriced] = [order.st === "waiting", order.st !== "waiting" || order.type !== "stop"];
    const done = () => {
      row.isEdited = false;
      for (const at of [2, 4, 5]) row.cells[at].shown = null;
      row.buttons.replaceChildren(...buttons);
      this.paint();
      buttons[0].focus();
    };
    const save = async () => {
      const fields = { qty: Number(qty.value), px: isPriced ? px.value.trim() : undefined, stop: isWaiting ? stop.value.trim() : undefined };
      await this._do(this.session.amend(oid, fields), (result) => `${order.sym}: amended, ${result.kept ? "its place kept" : "at the end of the queue"}.`);
      done();
    };
    const keys = (event) => (event.key === "Enter" ? save() : event.key === "Escape" ? done() : null);
    for (const input of [px, qty, stop]) input.addEventListener("keydown", keys);
    if (isPriced) row.cells[2].replaceChildren(px);
    row.cells[4].replaceChildren(qty);
    if (isWaiting) row.cells[5].replaceChildren(stop);
    row.buttons.replaceChildren(el("button", { type: "button", class: "main", click: save }, "Save"), el("button", { type: "button", click: done }, "Back"));
    (isPriced ? px : stop).focus();
  }

  _positions(positions) {
    keepRows($("positions").tBodies[0], positions, (position) => position.sym, (position) => el("tr", {}, this._link(position.sym), ...Array.from({ length: 7 }, () => el("td", { class: "num" }))), (row, position) => {
      const values = [grouped(position.net), this._value(position), grouped(position.capacity), grouped(position.open_buy), grouped(position.open_sell), dollars(position.escrow), dollars(position.bond)];
      values.forEach((value, at) => setText(row.cells[at + 1], value));
      row.cells[1].className = `num ${position.net > 0 ? "up" : position.net < 0 ? "down" : ""}`;
    });
  }

  _value({ sym, net }) {
    const [instrument, last] = [this.market.instruments.get(sym), this.market.tickers.get(sym)?.last];
    if (!instrument || last == null) return "·";
    return dollars(text(micros(last) * BigInt(gpuHours(instrument, net))));
  }

  _fills(fills) {
    keepRows($("fills").tBodies[0], fills, (fill) => `${fill.tid}:${fill.oid}`, (fill) => el("tr", {},
      el("td", { class: "dim", title: times.moment(fill.ts) }, this._when(fill.ts)), this._link(fill.sym), el("td", { class: fill.side === "buy" ? "up" : "down" }, fill.side),
      el("td", { class: "num" }, this._price(fill.sym, fill.px)), el("td", { class: "num" }, grouped(fill.qty)), el("td", {}, fill.liq), el("td", { class: "num" }, fill.fee)));
  }

  _done(orders) {
    keepRows($("done").tBodies[0], orders, (order) => order.oid, (order) => el("tr", {},
      el("td", { class: "dim", title: times.moment(order.done) }, this._when(order.done)), this._link(order.sym), el("td", { class: order.side === "buy" ? "up" : "down" }, order.side),
      el("td", { class: "num" }, this._price(order.sym, order.px)), el("td", { class: "num" }, grouped(order.cum)), el("td", { class: "num" }, grouped(order.qty)),
      el("td", { class: "dim" }, this._terms(order)), el("td", {}, order.st === "filled" ? "filled" : `${order.st}${order.why ? `: ${order.why.replaceAll("_", " ")}` : ""}`)));
  }

  /** A time of today as a clock shows it, any other with its day. */
  _when(us) {
    return times.day(us) === times.day(this.market.wire.marketUs()) ? times.clock(us) : times.moment(us);
  }

  _statements(statements) {
    $("statements-empty").hidden = statements.length > 0;
    $("statements").hidden = statements.length === 0;
    keepRows($("statements").tBodies[0], statements, (one) => one.cycle, (one) => {
      const save = (form) => el("button", { type: "button", "aria-label": `Statement of cycle ${one.cycle} as ${form}`, click: () => this._save(one.cycle, form) }, form.toUpperCase());
      const proof = el("button", { type: "button", "aria-label": `Check the proof of cycle ${one.cycle}`, click: () => this._prove(one.cycle) }, "Check proof");
      return el("tr", {}, el("td", {}, String(one.cycle)), el("td", {}, times.moment(one.ts)), el("td", { class: `num ${one.net.startsWith("-") ? "down" : "up"}` }, dollars(one.net)), el("td", { class: "num" }, dollars(one.external)),
        el("td", { class: "hash dim", title: one.root }, one.root.slice(0, 16)), el("td", {}, el("div", { class: "actions" }, save("csv"), save("json"), proof)));
    });
  }

  async _save(cycle, form) {
    try {
      const data = await this.session.statement(cycle, form);
      download(`${this.session.account}-${cycle}.${form}`, form === "csv" ? "text/csv" : "application/json", data);
    } catch (error) {
      toast(error.message);
    }
  }

  async _prove(cycle) {
    try {
      this.check((await this.session.proof(cycle)).file);
    } catch (error) {
      toast(error.message);
    }
  }
}

/** The past that is known, newest first. */
const newest = ({ items, placeOf }) => [...items.values()].sort((a, b) => placeOf(b) - placeOf(a));
