// The charts: candles with volume, depth, and the forward curve, drawn by uPlot in the page's colours.

import uPlot from "./vendor/uPlot.esm.js";
import { el, painter } from "./dom.js";
import * as times from "./times.js";

const PAUSE_MS = 250; // between two drawings of a chart
const CURVE_PAUSE_MS = 1000; // a canvas costs more than all the numbers around it, and a curve moves slowly
const MINUTES = [1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440]; // between two times on an axis
const STEPS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000]; // ticks between two prices on an axis
const LEAST_CANDLES = 40;
const NAMES = ["text", "dim", "line", "up", "down", "up-wash", "down-wash", "accent"];

/** The page's colours as they are now, by name. */
function palette() {
  const probe = document.body.appendChild(el("i"));
  const found = {};
  for (const name of NAMES) {
    probe.style.color = `var(--${name})`;
    found[name] = getComputedStyle(probe).color;
  }
  probe.remove();
  return found;
}

/** A chart in a box: made when it is first seen, made anew when the colours change, as wide as its box. */
class Chart {
  constructor(box, pause_ms = PAUSE_MS) {
    this.box = box;
    this.note = box.appendChild(el("div", { class: "chart-note", "aria-hidden": "true" }));
    this.colours = palette();
    this.plot = null;
    this.data = null;
    this.draw = painter(() => this._draw(), pause_ms, box);
    new ResizeObserver(() => this._resize()).observe(box);
    document.addEventListener("colours", () => this._anew());
  }

  /** Show these columns; the first has the x values. */
  show(data) {
    this.data = data;
    this.draw();
  }

  /** Drop everything: something else will be shown. */
  clear() {
    this.data = null;
    this.plot?.destroy();
    this.plot = null;
    this.note.replaceChildren();
  }

  _size() {
    return { width: this.box.clientWidth, height: this.box.clientHeight };
  }

  _resize() {
    const { width, height } = this._size();
    if (this.plot && width && (this.plot.width !== width || this.plot.height !== height)) this.plot.setSize({ width, height });
    else if (!this.plot) this.draw();
  }

  _anew() {
    this.colours = palette();
    const data = this.data;
    this.clear();
    if (data) this.show(data);
  }

  _draw() {
    if (!this.data || !this.box.clientWidth) return false;
    if (this.plot) this.plot.setData(this.data);
    else this.plot = new uPlot({ ...this._size(), ...this.options() }, this.data, this.box);
    return true;
  }

  /** What all charts share, for the options of one. */
  base() {
    const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
    const { dim, line } = this.colours;
    const axis = { stroke: dim, font: `${Math.round(rem * 0.78)}px ${getComputedStyle(document.body).fontFamily}`, grid: { stroke: line, width: 1 }, ticks: { show: false } };
    return {
      x: { ...axis, size: rem * 2, space: rem * 6, grid: { show: false } },
      y: { ...axis, side: 1, size: rem * 4, space: rem * 3 },
      padding: [rem * 0.8, 0, 0, rem * 0.4],
      cursor: { points: { show: false }, drag: { x: false, y: false } },
    };
  }

  /** An axis of prices: in steps of whole ticks. */
  priced(axis) {
    return { ...axis, incrs: STEPS.map((step) => step / 10 ** this.digits), values: (_, splits) => splits.map((px) => px.toFixed(this.digits)) };
  }

  _say(parts) {
    this.note.replaceChildren(...parts.map(([name, value]) => el("span", {}, `${name} `, el("b", {}, String(value)), "  ")));
  }
}

/** Candles: columns are seconds, open, high, low, close, lots. */
export class CandleChart extends Chart {
  constructor(box) {
    super(box);
    this.digits = 3;
    this.length_s = 60;
    this.hover = null;
  }

  options() {
    const { x, y, padding, cursor } = this.base();
    const hidden = { paths: () => null, points: { show: false } };
    return {
      padding, cursor,
      legend: { show: false },
      scales: { x: { time: false, range: (_, min, max) => this._span(min, max) }, y: { range: (_, min, max) => padded(min, max) }, v: { range: (_, __, max) => [0, Math.max(1, max) * 4.5] } },
      axes: [{ ...x, incrs: MINUTES.map((minutes) => minutes * 60), values: (_, splits) => splits.map((s) => times.hour(s * 1e6)) }, this.priced(y)],
      series: [{}, hidden, hidden, hidden, hidden, { ...hidden, scale: "v" }],
      hooks: { draw: [(plot) => this._candles(plot)], setCursor: [(plot) => this._tell(plot)], setData: [(plot) => this._tell(plot)] },
    };
  }

  /** At least forty candles wide, so that a young book does not look like a wall. */
  show([seconds, ...columns]) {
    const first = seconds.at(-1) - LEAST_CANDLES * this.length_s;
    if (seconds[0] <= first) super.show([seconds, ...columns]);
    else super.show([[first, ...seconds], ...columns.map((column) => [null, ...column])]);
  }

  _span(min, max) {
    return [min - this.length_s / 2, max + this.length_s / 2];
  }

  _candles(plot) {
    const [seconds, opens, highs, lows, closes, lots] = plot.data;
    const { ctx } = plot;
    const slot = Math.abs(plot.valToPos(this.length_s, "x", true) - plot.valToPos(0, "x", true));
    // Whole pixels: what lies between two is blurred over both.
    const width = Math.max(1, Math.round(Math.min(slot * 0.7, 18 * devicePixelRatio)));
    const thin = Math.max(1, Math.round(devicePixelRatio));
    const heightOf = (px) => Math.round(plot.valToPos(px, "y", true));
    const floor = plot.bbox.top + plot.bbox.height;
    ctx.save();
    ctx.beginPath();
    ctx.rect(plot.bbox.left, plot.bbox.top, plot.bbox.width, plot.bbox.height);
    ctx.clip();
    for (let at = 0; at < seconds.length; at++) {
      if (closes[at] === null) continue;
      if (!lots[at]) {
        ctx.fillStyle = this.colours.dim; // nobody traded: the price stands
        ctx.fillRect(plot.valToPos(seconds[at], "x", true) - slot / 2, heightOf(closes[at]), slot + 1, thin);
        continue;
      }
      const rises = closes[at] >= opens[at];
      const x = Math.round(plot.valToPos(seconds[at], "x", true));
      const left = x - Math.floor(width / 2);
      const [top, bottom] = [heightOf(Math.max(opens[at], closes[at])), heightOf(Math.min(opens[at], closes[at]))];
      ctx.fillStyle = rises ? this.colours["up-wash"] : this.colours["down-wash"];
      const height = floor - Math.round(plot.valToPos(lots[at], "v", true));
      ctx.fillRect(left, floor - height, width, height);
      ctx.fillStyle = rises ? this.colours.up : this.colours.down;
      const [high, low] = [heightOf(highs[at]), heightOf(lows[at])];
      ctx.fillRect(x - Math.floor(thin / 2), high, thin, low - high);
      ctx.fillRect(left, top, width, Math.max(bottom - top, thin));
    }
    ctx.restore();
  }

  _tell(plot) {
    const at = plot.cursor.idx ?? plot.data[0].length - 1;
    if (plot.data[4][at] == null) return;
    const [second, ...prices] = plot.data.map((column) => column[at]);
    const names = ["O", "H", "L", "C"];
    this._say([[times.moment(second * 1e6), ""], ...names.map((name, place) => [name, prices[place].toFixed(this.digits)]), ["lots", prices[4]]]);
  }
}

/** Depth: price, lots wanted at that price or better, lots offered at that price or better. */
export class DepthChart extends Chart {
  constructor(box) {
    super(box);
    this.digits = 3;
  }

  options() {
    const { x, y, padding, cursor } = this.base();
    const side = (name, align) => ({
      stroke: this.colours[name], fill: this.colours[`${name}-wash`], width: 2, points: { show: false }, paths: uPlot.paths.stepped({ align }),
    });
    return {
      padding, cursor,
      legend: { show: false },
      scales: { x: { time: false }, y: { range: (_, __, max) => [0, max * 1.1 || 1] } },
      axes: [this.priced(x), { ...y, values: (_, splits) => splits.map((v) => v.toLocaleString("en")) }],
      series: [{}, side("up", -1), side("down", 1)],
      hooks: { setCursor: [(plot) => this._tell(plot)] },
    };
  }

  _tell(plot) {
    const at = plot.cursor.idx;
    if (at == null) {
      this.note.replaceChildren();
      return;
    }
    const [px, bids, asks] = plot.data.map((column) => column[at]);
    this._say([[bids != null ? "sell down to" : "buy up to", px.toFixed(this.digits)], ["lots", (bids ?? asks ?? 0).toLocaleString("en")]]);
  }
}

/** The forward curve: seconds, GPU-hours traded, bid, ask, last; what is traded stands behind the prices. */
export class CurveChart extends Chart {
  constructor(box) {
    super(box, CURVE_PAUSE_MS);
    this.digits = 3;
  }

  options() {
    const { x, y, padding, cursor } = this.base();
    const { accent, up, down, line, text } = this.colours;
    const edge = (stroke) => ({ stroke, width: 1.5, points: { show: false }, spanGaps: false });
    return {
      padding, cursor,
      legend: { show: false },
      scales: { x: { time: false, range: (_, min, max) => [min - 1800, max + 1800] }, y: { range: (_, min, max) => padded(min, max) }, v: { range: (_, __, max) => [0, Math.max(1, max) * 4] } },
      axes: [
        { ...x, incrs: [1, 2, 3, 4, 6, 12, 24].map((hours) => hours * 3600), values: (_, splits) => splits.map((s) => (s % 86400 ? times.hour(s * 1e6) : times.day(s * 1e6))) },
        this.priced(y),
      ],
      series: [
        {},
        { scale: "v", fill: line, stroke: line, paths: uPlot.paths.bars({ size: [0.6, 60] }), points: { show: false } },
        edge(up), edge(down),
        { stroke: text, width: 0, paths: () => null, points: { show: true, size: 7, fill: text, stroke: text } },
      ],
      bands: [{ series: [3, 2], fill: alpha(accent, 0.16) }],
      hooks: { setCursor: [(plot) => this._tell(plot)] },
    };
  }

  _tell(plot) {
    const at = plot.cursor.idx;
    if (at == null) {
      this.note.replaceChildren();
      return;
    }
    const [second, hours, bid, ask, last] = plot.data.map((column) => column[at]);
    const show = (value) => (value == null ? "·" : value.toFixed(this.digits));
    this._say([[times.moment(second * 1e6), ""], ["bid", show(bid)], ["ask", show(ask)], ["last", show(last)], ["GPU-hours", (hours ?? 0).toLocaleString("en")]]);
  }
}

function padded(min, max) {
  if (min == null || max == null) return [0, 1];
  const room = (max - min || max * 0.01 || 1) * 0.12;
  return [Math.max(0, min - room * 2.4), max + room];
}

const alpha = (colour, share) => colour.replace(/^rgb\((.*)\)$/, `rgba($1, ${share})`);
