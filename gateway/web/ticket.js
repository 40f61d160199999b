// The order form.

import { micros, text, usd } from "./decimal.js";
import { $, setAttribute, setText } from "./dom.js";
import { gpuHours } from "./market.js";

const MAX_LOTS = 1000000;
const HOUR_MS = 3600e3;
const PRICED = ["limit", "stop_limit"];
const STOPS = ["stop", "stop_limit"];
const FIELDS = ["px", "qty", "stop", "expire", "show"];
const RESTING = ["gtg", "gtd"];
/** What is said in place of an order's button where a contract takes none. */
const CLOSED = { closed: "The gate is closed", delisted: "The gate is closed", halted: "Halted", cancel_only: "Only cancels are taken", exchange_halted: "The exchange is halted" };

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
    this.form.elements[PRICED.includes(this.form.elements.type.value) ? "px" : "qty"].focus();
  }

  /** Once the contract is known: start from its own side of the book. */
  _for(instrument) {
    if (this.instrument?.sym.split("-", 2).join() !== instrument.sym.split("-", 2).join()) this.form.elements.px.value = "";
    this.instrument = instrument;
    this.update();
  }

  /** Closed and halted contracts take no orders. */
  _stands(status) {
    if (this.status === status) return;
    this.status = status;
    this.update();
  }

  /** The order as the fields say it: what does not go with its type is left out. */
  _read() {
    const { side, type, tif, px, qty, stop, expire, post, show, reduce_only: reduceOnly } = this.form.elements;
    const order = { sym: this.instrument?.sym, side: side.value, type: type.value, qty: Number(qty.value) };
    if (PRICED.includes(type.value)) order.px = px.value.trim();
    if (STOPS.includes(type.value)) order.stop = stop.value.trim();
    if (type.value !== "market" || tif.value === "fok") order.tif = tif.value;
    if (order.tif === "gtd") order.expire = Date.parse(`${expire.value}Z`) * 1000;
    if (!post.disabled && post.value) order.post = post.value;
    if (!show.disabled && show.value.trim()) order.show = Number(show.value);
    if (reduceOnly.checked) order.reduce_only = true;
    return order;
  }

  /** What is wrong with an order, and in which field; null when nothing is. */
  _fault(order) {
    const { qty, show } = this.form.elements;
    if (!isLots(qty.value, MAX_LOTS)) return ["qty", `Lots: a whole number from 1 to ${MAX_LOTS.toLocaleString("en")}.`];
    if (order.show !== undefined && !isLots(show.value, order.qty)) return ["show", `Visible lots: a whole number from 1 to ${order.qty}.`];
    if (order.tif === "gtd" && !order.expire) return ["expire", "Until when? A date and a time, UTC."];
    return this._priceFault(order, "stop", "The stop") ?? this._priceFault(order, "px", "The price");
  }

  _priceFault(order, field, name) {
    if (order[field] === undefined) return null;
    const px = micros(order[field]);
    if (px === null || px < 0n) return [field, `${name}: a number, for example 2.435.`];
    if (px % micros(this.instrument.tick) !== 0n) return [field, `${name}: in steps of ${this.instrument.tick}.`];
    if (px > micros(this.instrument.max_px)) return [field, `${name}: ${this.instrument.max_px} at the most.`];
    return null;
  }

  update() {
    this._choices();
    const order = this._read();
    this._sums(order);
    this._button(order);
  }

  /** Only what goes together can be chosen. */
  _choices() {
    const { type, px, tif, stop, expire, post, show, side } = this.form.elements;
    const isMarket = type.value === "market";
    px.disabled = !PRICED.includes(type.value);
    for (const option of tif.options) option.disabled = isMarket && RESTING.includes(option.value);
    if (isMarket && RESTING.includes(tif.value)) [this.resting, tif.value] = [tif.value, "ioc"];
    else if (!isMarket && this.resting) [tif.value, this.resting] = [this.resting, null]; // as it was before the market order
    const rests = RESTING.includes(tif.value);
    post.disabled = type.value !== "limit" || !rests;
    show.disabled = !PRICED.includes(type.value) || !rests;
    const [isStop, isTimed] = [STOPS.includes(type.value), tif.value === "gtd"];
    stop.parentElement.hidden = $("ticket-stop-words").hidden = !isStop;
    expire.parentElement.hidden = !isTimed;
    if (isTimed && !expire.value) expire.value = this._anHour();
    const then = type.value === "stop" ? "trades what it can at once" : "becomes a limit order";
    setText($("ticket-stop-words"), `Waits until the last trade is ${side.value === "buy" ? "at the stop or above" : "at the stop or below"}, then ${then}.`);
    const more = [!post.disabled && post.value && "post only", !show.disabled && show.value.trim() && "iceberg", this.form.elements.reduce_only.checked && "reduce only"];
    setText($("ticket-more-note"), more.filter(Boolean).map((name) => `· ${name}`).join(" "));
  }

  /** In an hour, by the market's clock, but not after the gate. */
  _anHour() {
    const ms = Math.min(this.market.wire.marketUs() / 1000 + HOUR_MS, (this.instrument?.gate ?? Infinity) / 1000);
    return new Date(ms).toISOString().slice(0, 19);
  }

  _sums(order) {
    const one = this.instrument;
    const lots = Number.isInteger(order.qty) && order.qty > 0 ? order.qty : 0;
    setText($("ticket-hours"), one && lots ? (gpuHours(one, lots)).toLocaleString("en") : "·");
    const ticker = one && this.market.tickers.get(one.sym);
    const px = micros(order.px ?? order.stop ?? (order.side === "buy" ? ticker?.ask : ticker?.bid) ?? "");
    const value = one && lots && px !== null ? px * BigInt(gpuHours(one, lots)) : null;
    setText($("ticket-value-name"), order.type === "market" ? "Value at the best price" : order.type === "stop" ? "Value at the stop" : "Value");
    setText($("ticket-value"), value === null ? "·" : `${usd(text(value))}`);
    const fee = value === null ? null : (value * BigInt(one.taker_ppm) + 999999n) / 1000000n;
    setText($("ticket-fee"), fee === null ? "·" : `$${text(fee, 2, 6)}`);
    const cash = this.session.balances?.cash;
    setText($("ticket-cash"), cash == null ? "·" : `${usd(cash)}`);
  }

  _button(order) {
    const button = $("ticket-send");
    const isIn = this.session.account !== null;
    button.disabled = this.status in CLOSED || this.sending === true;
    if (this.status in CLOSED) {
      setText(button, CLOSED[this.status]);
      return;
    }
    setAttribute(button, "class", isIn ? `main wide ${order.side}` : "main wide");
    const px = `${order.stop ? `from ${order.stop}` : ""} ${order.type === "market" ? "at the market" : order.px ? `at ${order.px}` : ""}`;
    setText(button, !isIn ? "Log on to trade" : `${order.side === "buy" ? "Buy" : "Sell"} ${order.qty || ""} ${px}`.replace(/\s+/g, " ").trim());
  }

  async _send() {
    if (this.session.account === null) {
      this.logon();
      return;
    }
    const order = this._read();
    const fault = this.instrument ? this._fault(order) : ["qty", "The contract is not known yet."];
    for (const name of FIELDS) setAttribute(this.form.elements[name], "aria-invalid", fault?.[0] === name ? "true" : null);
    if (fault) {
      this._say(fault[1], "down");
      if (fault[0] === "show") $("ticket-more").open = true;
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

const isLots = (text, most) => /^\d+$/.test(text.trim()) && Number(text) >= 1 && Number(text) <= most;

function outcome(order, { st, cum, left }) {
  if (st === "waiting") return `${left} waiting for the stop at ${order.stop}.`;
  const verb = order.side === "buy" ? "Bought" : "Sold";
  if (st === "filled") return `${verb} ${cum}.`;
  if (st === "canceled") return cum ? `${verb} ${cum}; the rest found nothing.` : "Nothing to trade with: cancelled.";
  return cum ? `${verb} ${cum}, ${left} in the book.` : `${left} in the book.`;
}
