// Keys of people: read from their files, and, for who wants it, remembered by this browser.

const PKCS8_HEAD = "302e020100300506032b657004220420"; // RFC 8410: an Ed25519 seed follows
const DATABASE = "wellhead";
const STORE = "keys";

/** Read a key file (JSON, PEM or the bare seed in base64): { key, account, privateKey }. Throws Error. */
export async function readKey(content, keyId = "") {
  if (!globalThis.crypto?.subtle) {
    throw new Error("This browser signs only over https or on this machine (localhost). Open the page that way to log on.");
  }
  const { id, account, pkcs8 } = parseKey(content.trim(), keyId);
  let privateKey;
  try {
    privateKey = await crypto.subtle.importKey("pkcs8", pkcs8, { name: "Ed25519" }, false, ["sign"]);
  } catch (error) {
    throw new Error(error.name === "NotSupportedError" ? "This browser does not know Ed25519." : "That is no Ed25519 private key.");
  }
  return { key: id, account, privateKey };
}

function parseKey(content, keyId) {
  if (content.startsWith("{")) {
    let fields;
    try {
      fields = JSON.parse(content);
    } catch {
      throw new Error("That is not a whole key file.");
    }
    if (!fields.key || !fields.private_key) throw new Error("That is no key file: it needs key and private_key.");
    return { id: fields.key, account: fields.account, pkcs8: wrapped(bytes(fields.private_key)) };
  }
  if (!keyId) throw new Error("Which key is it? A bare private key does not say.");
  const pem = /-----BEGIN PRIVATE KEY-----([\s\S]+)-----END PRIVATE KEY-----/.exec(content);
  return { id: keyId, account: keyId, pkcs8: pem ? bytes(pem[1].replace(/\s/g, "")) : wrapped(bytes(content)) };
}

function bytes(base64) {
  try {
    return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  } catch {
    throw new Error("That is no private key: it is not base64.");
  }
}

function wrapped(seed) {
  if (seed.length !== 32) throw new Error("That is no Ed25519 private key: it should have 32 bytes.");
  return Uint8Array.from([...PKCS8_HEAD.match(/../g).map((pair) => parseInt(pair, 16)), ...seed]);
}

/**
 * The keys that this browser remembers. The browser keeps them as keys that nobody can read out again, scripts of this page
 * included; whoever sits at this browser can sign with them. Each: { key, account, privateKey, cod }.
 */
export async function rememberedKeys() {
  if (!globalThis.indexedDB || !globalThis.crypto?.subtle) return [];
  return inStore("readonly", (store) => store.getAll());
}

/** Remember what `readKey` gave, and whether its orders are to go with the connection. */
export const rememberKey = (credentials) => inStore("readwrite", (store) => store.put(credentials));

/** Forget the key with this name. */
export const forgetKey = (key) => inStore("readwrite", (store) => store.delete(key));

async function inStore(mode, work) {
  const database = await asked(indexedDB.open(DATABASE, 1), (request) => {
    request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "key" });
  });
  try {
    return await asked(work(database.transaction(STORE, mode).objectStore(STORE)));
  } finally {
    database.close();
  }
}

function asked(request, prepare = () => {}) {
  prepare(request);
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(new Error(`This browser keeps nothing: ${request.error.message}`));
  });
}
