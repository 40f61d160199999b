// Delivery and settlement: batches in their chain, deliveries, and the box that checks a proof.

import { dollars, grouped, price } from "./decimal.js";
import { $, el, keepRows, painter, setText } from "./dom.js";
import { batchIsWhole, checkProof, ProofError } from "./proof.js";
import * as times from "./times.js";

const SHOWN_DELIVERIES = 200;

export class SettlementView {
  constructor(market) {
    this.market = market;
    this.whole = new Map(); // id -> whether the batch is what its id says
    this.paintBatches = painter(() => this._paintBatches(), 200);
    this.paintDeliveries = painter(() => this._paintDeliveries(), 200);
    market.addEventListener("batches", () => this.paintBatches());
    market.addEventListener("deliveries", () => this.paintDeliveries());
    $("proof-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this._check();
    });
    $("proof-file").addEventListener("change", async (event) => {
      const [file] = event.target.files;
      if (file) await this.check(await file.text());
      event.target.value = ""; // the same file can be chosen again
    });
  }

  show() {
    this.paintBatches();
    this.paintDeliveries();
  }

  /** Put a proof in the box and check it. */
  check(content) {
    $("proof-text").value = content;
    return this._check();
  }

  async _check() {
    const box = $("proof-result");
    try {
      const { ok, verdict, steps } = await checkProof($("proof-text").value, this.market.batches);
      box.replaceChildren(el("p", { class: "verdict", "data-ok": String(ok) }, `${ok ? "✓" : "✗"} ${verdict}`), el("ol", { class: "steps" }, ...steps.map(stepLine)));
    } catch (error) {
      if (!(error instanceof ProofError)) throw error;
      box.replaceChildren(el("p", { class: "verdict", "data-ok": "false" }, `✗ ${error.message}`));
    }
  }

  async _paintBatches() {
    const batches = [...this.market.batches.values()].sort((a, b) => b.cycle - a.cycle);
    $("batches-empty").hidden = batches.length > 0;
    $("batches").hidden = batches.length === 0;
    keepRows($("batches").tBodies[0], batches, (batch) => batch.id + batch.state, batchRow);
    if (globalThis.crypto?.subtle) await this._checkChain(batches);
  }

  /** Each id again from the batch's content, and each batch on the one before. */
  async _checkChain(batches) {
    for (const batch of batches) if (!this.whole.has(batch.id)) this.whole.set(batch.id, await batchIsWhole(batch));
    const holds = batches.every((batch, at) => this.whole.get(batch.id) && (at === batches.length - 1 || batch.prev_id === batches[at + 1].id));
    setText($("chain-note"), !batches.length ? "" : holds ? `✓ the chain holds: every id worked out again here` : "✗ the chain does not hold");
  }

  _paintDeliveries() {
    const deliveries = [...this.market.deliveries.values()].sort((a, b) => b.start - a.start || a.sym.localeCompare(b.sym)).slice(0, SHOWN_DELIVERIES);
    $("deliveries-empty").hidden = deliveries.length > 0;
    $("deliveries").hidden = deliveries.length === 0;
    const lots = deliveries.reduce((sum, one) => sum + one.done, 0);
    setText($("deliveries-note"), deliveries.length ? `${grouped(lots)} lots settled in ${deliveries.length} contracts. * an index without enough trades of its own` : "");
    keepRows($("deliveries").tBodies[0], deliveries, (one) => one.sym, deliveryRow, (row, one) => {
      const values = [one.done >= one.lots ? "settled" : one.done ? `${one.done} settled` : "due", grouped(one.lots), one.providers, one.receivers, dollars(one.paid), dollars(one.refund), dollars(one.damages), `${price(one.index, 3)}${one.index_from === "prints" ? "" : "*"}`];
      values.forEach((value, at) => setText(row.cells[at + 2], String(value)));
    });
  }
}

function stepLine({ ok, text, hash }) {
  const mark = ok === null ? "·" : ok ? "✓" : "✗";
  const line = el("div", {}, text);
  if (hash) line.append(el("span", { class: "hash" }, hash));
  return el("li", { class: ok === false ? "down" : "" }, el("span", { "aria-label": ok === null ? "not known" : ok ? "holds" : "fails" , role: "img" }, mark), line);
}

function batchRow(batch) {
  const hash = (value) => el("td", { class: "hash", title: value }, value.slice(0, 12));
  return el("tr", {}, el("td", {}, el("b", {}, String(batch.cycle))), el("td", {}, times.moment(batch.ts)), el("td", {}, el("span", { class: "pill", "data-kind": "good" }, batch.state)),
    el("td", { class: "num" }, dollars(batch.gross)), el("td", { class: "num" }, dollars(batch.net)), el("td", { class: "num" }, dollars(batch.owed)), hash(batch.root), hash(batch.id));
}

function deliveryRow(one) {
  const numbers = Array.from({ length: 7 }, () => el("td", { class: "num" }));
  return el("tr", {}, el("td", {}, el("b", {}, one.sym)), el("td", {}, `${times.day(one.start)} ${times.hour(one.start)}`), el("td"), ...numbers);
}
