// One book from its snapshot and deltas, checked against the exchange's checksum after each message.

import { micros } from "./decimal.js";

const CHECKED_LEVELS = 10;
const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, number) => {
  for (let bit = 0; bit < 8; bit++) number = number & 1 ? (number >>> 1) ^ 0xedb88320 : number >>> 1;
  return number;
});

/** CRC-32 (zlib) of an ASCII text. */
export function crc32(text) {
  let crc = -1;
  for (let at = 0; at < text.length; at++) crc = CRC_TABLE[(crc ^ text.charCodeAt(at)) & 255] ^ (crc >>> 8);
  return (crc ^ -1) >>> 0;
}

export class Book {
  constructor() {
    this.clear();
  }

  clear() {
    this.seq = 0;
    this.bids = new Map(); // price in micros -> { px, qty }
    this.asks = new Map();
    this._sorted = null;
  }

  /** Take a push of `l2`; false when the book is not what it should be, and has to be asked for again. */
  take(push) {
    if (push.ev === "snapshot") this.clear();
    else if (push.prev !== this.seq) return false;
    this.seq = push.seq;
    this._sorted = null;
    set(this.bids, push.b);
    set(this.asks, push.a);
    return this.checksum() === push.crc;
  }

  /** Levels of both sides, best first: { px, qty, micros }. */
  levels() {
    this._sorted ??= { bids: sorted(this.bids, -1), asks: sorted(this.asks, 1) };
    return this._sorted;
  }

  checksum() {
    const { bids, asks } = this.levels();
    const line = (level) => `${level.micros}:${level.qty};`;
    return crc32([...bids.slice(0, CHECKED_LEVELS), ...asks.slice(0, CHECKED_LEVELS)].map(line).join(""));
  }
}

function set(side, levels) {
  for (const [px, qty] of levels) {
    const key = Number(micros(px)); // a price stays far below 2^53
    if (qty) side.set(key, { px, qty, micros: key });
    else side.delete(key);
  }
}

const sorted = (side, sign) => [...side.values()].sort((a, b) => sign * (a.micros - b.micros));
