// The order form.

import { micros, text, usd } from "./decimal.js";
import { $, setAttribute, setText } from "./dom.js";
import { gpuHours } from "./market.js";

const MAX_LOTS = 1000000;

export class Ticket {
  /** `logon()` is called where an order is sent by nobody. */
  constructor(session, market, logon) {
    this.session = session;
    this.market = market;
    this.form = $("ticket");
    this.logon = logon;
    this.instrument = null;
    this.form.addEventListener("input", () => this.update());
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this._send();
    });
    document.addEventListener("contract", (event) => this._for(event.detail));
    document.addEventListener("contract-state", (event) => this._stands(event.detail));
    session.addEventListener("change", () => this.update());
    session.addEventListener("end", () => this.update());
    this.update();
  }

  /** Take a price over from the book. */
  takeOver(px, side) {
    this.form.elements.side.value = side;
    this.form.elements.type.value = "limit";
    this.form.elements.px.value = px;
    this.update();
    this.form.elements.qty.focus();
  }

  chooseSide(side) {
    this.form.elements.side.value = side;
    this.update();
    this.form.elements[this.form.elements.type.value === "market" ? "qty" : "px"].focus();
  }

  /** Once the contract is known: start from its own side of the book. */
  _for(instrument) {
    if (this.instrument?.sym.split("-", 2).join() !== instrument.sym.split("-", 2).join()) this.form.elements.px.value = "";
    this.instrument = instrument;
    this.update();
  }

  /** Closed contracts take no orders. */
  _stands(status) {
    if (this.status === status) return;
    this.status = status;
    this.update();
  }

  _read() {
    const { side, type, tif, px, qty, post } = this.form.elements;
    const isMarket = type.value === "market";
    const order = { sym: this.instrument?.sym, side: side.value, type: type.value, qty: Number(qty.value) };
    if (!isMarket) Object.assign(order, { px: px.value.trim(), tif: tif.value });
    else if (tif.value === "fok") order.tif = "fok";
    if (!isMarket && post.checked && tif.value === "gtg") order.post = "reject";
    return order;
  }

  /** What is wrong with an order, and in which field; null when nothing is. */
  _fault(order) {
    if (!/^\d+$/.test(this.form.elements.qty.value.trim()) || order.qty < 1 || order.qty > MAX_LOTS) {
      return ["qty", `Lots: a whole number from 1 to ${MAX_LOTS.toLocaleString("en")}.`];
    }
    if (order.type === "market") return null;
    const px = micros(order.px);
    if (px === null || px < 0n) return ["px", "The price: a number, for example 2.435."];
    if (px % micros(this.instrument.tick) !== 0n) return ["px", `The price: in steps of ${this.instrument.tick}.`];
    if (px > micros(this.instrument.max_px)) return ["px", `The price: ${this.instrument.max_px} at the most.`];
    return null;
  }

  update() {
    const { type, px, tif, post } = this.form.elements;
    const isMarket = type.value === "market";
    px.disabled = isMarket;
    tif.options[0].disabled = isMarket;
    if (isMarket && tif.value === "gtg") tif.value = "ioc";
    post.disabled = isMarket || tif.value !== "gtg";
    const order = this._read();
    this._sums(order);
    this._button(order);
  }

  _sums(order) {
    const one = this.instrument;
    const lots = Number.isInteger(order.qty) && order.qty > 0 ? order.qty : 0;
    setText($("ticket-hours"), one && lots ? (gpuHours(one, lots)).toLocaleString("en") : "·");
    const ticker = one && this.market.tickers.get(one.sym);
    const px = micros(order.px ?? (order.side === "buy" ? ticker?.ask : ticker?.bid) ?? "");
    const value = one && lots && px !== null ? px * BigInt(gpuHours(one, lots)) : null;
    setText($("ticket-value-name"), order.type === "market" ? "Value at the best price" : "Value");
    setText($("ticket-value"), value === null ? "·" : `${usd(text(value))}`);
    const fee = value === null ? null : (value * BigInt(one.taker_ppm) + 999999n) / 1000000n;
    setText($("ticket-fee"), fee === null ? "·" : `$${text(fee, 2, 6)}`);
    const cash = this.session.balances?.cash;
    setText($("ticket-cash"), cash == null ? "·" : `${usd(cash)}`);
  }

  _button(order) {
    const button = $("ticket-send");
    const isIn = this.session.account !== null;
    const isOver = this.status === "closed" || this.status === "delisted";
    button.disabled = isOver || this.sending === true;
    if (isOver) {
      setText(button, "The gate is closed");
      return;
    }
    setAttribute(button, "class", isIn ? `main wide ${order.side}` : "main wide");
    const px = order.type === "market" ? "at the market" : order.px ? `at ${order.px}` : "";
    setText(button, !isIn ? "Log on to trade" : `${order.side === "buy" ? "Buy" : "Sell"} ${order.qty || ""} ${px}`.replace(/\s+/g, " ").trim());
  }

  async _send() {
    if (this.session.account === null) {
      this.logon();
      return;
    }
    const order = this._read();
    const fault = this.instrument ? this._fault(order) : ["qty", "The contract is not known yet."];
    for (const name of ["px", "qty"]) setAttribute(this.form.elements[name], "aria-invalid", fault?.[0] === name ? "true" : null);
    if (fault) {
      this._say(fault[1], "down");
      this.form.elements[fault[0]].focus();
      return;
    }
    await this._place(order);
  }

  async _place(order) {
    this.sending = true;
    this.update();
    try {
      const result = await this.session.place(order);
      this._say(outcome(order, result), "up");
    } catch (error) {
      this._say(`${error.name === "Error" ? "" : `${error.name}: `}${error.message}`, "down");
    } finally {
      this.sending = false;
      this.update();
    }
  }

  _say(words, kind) {
    setAttribute($("ticket-answer"), "class", `answer ${kind}`);
    setText($("ticket-answer"), words);
  }
}

function outcome(order, { st, cum, left }) {
  const verb = order.side === "buy" ? "Bought" : "Sold";
  if (st === "filled") return `${verb} ${cum}.`;
  if (st === "canceled") return cum ? `${verb} ${cum}; the rest found nothing.` : "Nothing to trade with: cancelled.";
  return cum ? `${verb} ${cum}, ${left} in the book.` : `${left} in the book.`;
}
