// Proofs, checked here: nothing is asked of the exchange but the root it has published.
// The hashes are those of settlement/proofs.py and settlement/liabilities.py.

import { micros, text, usd } from "./decimal.js";

const HASH = /^[0-9a-f]{64}$/;
const MAX_AMOUNT = 10n ** 18n;

/** Something in a proof that cannot be: the message says what. */
export class ProofError extends Error {}

/**
 * Check the text of a proof, or of a statement's JSON, against the published batches (a Map by cycle).
 * Returns { ok, verdict, steps: [{ ok, text, hash }] }; throws ProofError for what is no proof at all.
 */
export async function checkProof(content, batches) {
  if (!globalThis.crypto?.subtle) throw new ProofError("This browser hashes only over https or on this machine (localhost).");
  const proof = readProof(content);
  const steps = [];
  const root = await netRoot(proof, steps);
  steps.push({ ok: root === proof.root, text: `The way up ends in ${root === proof.root ? "the root of the proof" : "another root"}`, hash: root });
  const batch = batches.get(Number(proof.cycle));
  steps.push(published(batch?.root, proof.root, `root of cycle ${proof.cycle}`));
  if (proof.liability) await checkLiability(proof.liability, batch, steps);
  const ok = steps.every((step) => step.ok !== false);
  return { ok, verdict: verdict(ok, proof), steps };
}

function verdict(ok, proof) {
  const who = `account ${proof.account}, cycle ${proof.cycle}`;
  return ok ? `It checks: ${who} has a net of ${usd(text(proof.net))} under this root.` : `It does not check: ${who} is not shown to be under this root.`;
}

function published(known, claimed, what) {
  if (!known) return { ok: null, text: `The ${what} is not among the batches that this page knows: compare it yourself`, hash: claimed };
  return { ok: known === claimed, text: `It is ${known === claimed ? "" : "not "}the ${what} that the exchange published`, hash: known };
}

/** Read a proof into BigInts and hex, whatever size its numbers have. */
function readProof(content) {
  let fields;
  try {
    // Sums above 2^53 would lose digits as numbers, so that long ones are read as texts.
    fields = JSON.parse(content.replace(/([:[,]\s*)(-?\d{16,})(?=\s*[,\]}])/g, '$1"$2"'));
  } catch {
    throw new ProofError("This is not JSON.");
  }
  if (typeof fields !== "object" || fields === null) throw new ProofError("This is no proof.");
  const inner = fields.proof ? { ...fields.proof, cycle: fields.cycle, root: fields.root } : fields;
  const sum = (name) => (inner[`${name}_micros`] === undefined ? micros(inner[name]) : whole(inner[`${name}_micros`], name));
  const proof = {
    cycle: whole(inner.cycle, "cycle"),
    account: whole(inner.account, "account"),
    net: sum("net"),
    external: sum("external"),
    root: hash(inner.root, "root"),
    ...place(inner),
    partners: list(inner.partners).map((partner) => hash(partner, "partner")),
    liability: inner.liability,
  };
  if (proof.net === null || proof.external === null) throw new ProofError("This is no proof: a net is missing.");
  return proof;
}

function whole(value, name) {
  if (value === undefined || !/^-?\d+$/.test(String(value))) throw new ProofError(`This is no proof: ${name} is not a whole number.`);
  return BigInt(value);
}

function hash(value, name) {
  if (!HASH.test(String(value))) throw new ProofError(`This is no proof: ${name} is not a hash.`);
  return value;
}

function list(value) {
  if (!Array.isArray(value)) throw new ProofError("This is no proof: the partners are missing.");
  return value;
}

function place(fields) {
  const index = Number(whole(fields.index, "index"));
  const leaves = Number(whole(fields.leaves, "leaves"));
  if (!(index >= 0 && index < leaves)) throw new ProofError("This is no proof: there is no such leaf.");
  return { index, leaves };
}

/** The root that an entry and its partners lead to. */
async function netRoot(proof, steps) {
  const entry = joined(int64(proof.cycle), int64(proof.account), int64(proof.net), int64(proof.external));
  let node = await sha256(tag("leaf"), await sha256(entry));
  steps.push({ ok: true, text: `Leaf ${proof.index + 1} of ${proof.leaves}: cycle, account, net and deposits, hashed`, hash: hex(node) });
  const partners = proof.partners.map(unhex);
  await climb(proof, partners, async (partner, isRight) => {
    node = await sha256(tag("node"), ...(isRight ? [partner, node] : [node, partner]));
  });
  return hex(await sha256(tag("root"), int64(BigInt(proof.leaves)), node));
}

/** Go up a tree from a leaf; `meet(partner, isRight)` at each node that has one. Throws where partners are missing or left over. */
async function climb({ index, leaves }, partners, meet) {
  let at = index;
  for (let width = leaves; width > 1; width = (width + 1) >> 1) {
    if ((at ^ 1) < width) {
      if (!partners.length) throw new ProofError("This is no proof: partners are missing.");
      await meet(partners.shift(), (at & 1) === 1);
    }
    at >>= 1;
  }
  if (partners.length) throw new ProofError("This is no proof: there are partners too many.");
}

async function checkLiability(fields, batch, steps) {
  const [owed, total] = [whole(fields.owed_micros, "owed"), whole(fields.total_micros, "total")];
  const spot = place(fields);
  const partners = list(fields.partners).map((partner) => {
    const [amount, digest] = list(partner);
    return { amount: whole(amount, "sum"), digest: unhex(hash(digest, "partner")) };
  });
  let node = { amount: owed, digest: await sha256(tag("owed"), int64(whole(fields.cycle, "cycle")), int64(whole(fields.account, "account")), uint128(owed)) };
  await climb(spot, partners, async (partner, isRight) => {
    const [left, right] = isRight ? [partner, node] : [node, partner];
    const digest = await sha256(tag("sums"), uint128(left.amount), left.digest, uint128(right.amount), right.digest);
    node = { amount: left.amount + right.amount, digest };
  });
  const root = hex(await sha256(tag("total"), int64(BigInt(spot.leaves)), uint128(node.amount), node.digest));
  steps.push({ ok: node.amount === total, text: `What is owed to the account is counted in a total of ${usd(text(node.amount))}`, hash: hex(node.digest) });
  steps.push({ ok: root === fields.root, text: `The sums lead to ${root === fields.root ? "the root of the liabilities" : "another root than the proof's"}`, hash: root });
  steps.push(published(batch?.owed_root, fields.root, "root of the liabilities"));
  const assets = whole(fields.assets_micros, "assets");
  steps.push({ ok: assets >= total, text: `The exchange says that it holds ${usd(text(assets))} against it` });
}

/** Whether a batch's id is the hash of its content, and of the id of the batch before. */
export async function batchIsWhole(batch) {
  const gross = micros(batch.gross);
  const head = joined(int64(BigInt(batch.cycle)), int64(BigInt(batch.from_seq)), int64(BigInt(batch.to_seq)), uint128(gross));
  return hex(await sha256(tag("batch"), head, unhex(batch.root), unhex(batch.prev_id))) === batch.id;
}

// --- Bytes ---------------------------------------------------------------------------------------------------------

const tag = (name) => new TextEncoder().encode(`wellhead ${name} 1\n`);
const hex = (data) => Array.from(data, (byte) => byte.toString(16).padStart(2, "0")).join("");
const unhex = (digits) => Uint8Array.from(digits.match(/../g) ?? [], (pair) => parseInt(pair, 16));

function joined(...parts) {
  const all = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

async function sha256(...parts) {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", joined(...parts)));
}

function int64(number) {
  if (BigInt.asIntN(64, number) !== number) throw new ProofError("This is no proof: a number is too large.");
  const data = new DataView(new ArrayBuffer(8));
  data.setBigInt64(0, number);
  return new Uint8Array(data.buffer);
}

/** An amount of the sum tree: none may be below zero, or it would hide a debt. */
function uint128(amount) {
  if (amount < 0n || amount > MAX_AMOUNT) throw new ProofError(`An amount of ${amount} micros cannot be owed.`);
  const data = new DataView(new ArrayBuffer(16));
  data.setBigUint64(8, amount);
  return new Uint8Array(data.buffer);
}
