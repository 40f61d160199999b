// Money and prices: decimal texts on the wire, whole micros (10^-6, BigInt) in sums, and never a float in either.

const DECIMAL = /^(-?)(\d+)(?:\.(\d{1,6}))?$/;

/** Micros of a decimal text; null where it is none. */
export function micros(text) {
  const found = DECIMAL.exec(String(text ?? "").trim());
  if (!found) return null;
  const amount = BigInt(found[2]) * 1000000n + BigInt((found[3] ?? "").padEnd(6, "0"));
  return found[1] ? -amount : amount;
}

/** A decimal text of micros, with at least `least` and at most `most` digits behind the point; what is finer is cut. */
export function text(amount, least = 0, most = 6) {
  const sign = amount < 0n ? "-" : "";
  const size = amount < 0n ? -amount : amount;
  let rest = String(size % 1000000n).padStart(6, "0").slice(0, most);
  while (rest.length > least && rest.endsWith("0")) rest = rest.slice(0, -1);
  return `${sign}${size / 1000000n}${rest ? "." + rest : ""}`;
}

/** A decimal text with thousands set apart. */
export function grouped(value) {
  const [whole, rest] = String(value).split(".");
  return whole.replace(/\B(?=(\d{3})+$)/g, ",") + (rest ? "." + rest : "");
}

/** Dollars to the cent, of a decimal text. Cut, not rounded. */
export const dollars = (value) => (value == null ? "·" : grouped(text(micros(value), 2, 2)));

/** The same with its sign before the dollar: -$63.67. */
export const usd = (value) => (value == null ? "·" : dollars(value).replace(/^(-?)/, "$1$$"));

/** How many digits the prices of a tick have. */
export const digitsOf = (tick) => (String(tick).split(".")[1] ?? "").length;

/** A price with as many digits as its tick. */
export function price(value, digits) {
  if (value == null) return "·";
  const [whole, rest = ""] = String(value).split(".");
  return digits ? `${whole}.${rest.padEnd(digits, "0").slice(0, Math.max(digits, rest.length))}` : whole;
}

/** A count in short: 950, 12.4k, 3.1M. */
export function short(count) {
  if (count < 10000) return grouped(count);
  const [divisor, unit] = count < 1000000 ? [100, "k"] : count < 1000000000 ? [100000, "M"] : [100000000, "G"];
  const tenths = Math.floor(count / divisor);
  return `${Math.floor(tenths / 10)}.${tenths % 10}${unit}`;
}

/** The change from one price to another: { text: "+1.2%", trend: "up" }. */
export function change(from, to) {
  if (from == null || to == null || micros(from) === 0n) return { text: "", trend: null };
  const tenths = Number(((micros(to) - micros(from)) * 10000n) / micros(from));
  if (tenths === 0) return { text: "0.0%", trend: null };
  const size = Math.round(Math.abs(tenths) / 10);
  const sign = tenths > 0 ? "▲" : "▼";
  return { text: `${sign} ${Math.floor(size / 10)}.${size % 10}%`, trend: tenths > 0 ? "up" : "down" };
}
