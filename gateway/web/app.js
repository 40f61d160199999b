// The page: what is shown for which address, the bar, the log-on, the keyboard.

import { Contract } from "./contract.js";
import { Desk } from "./desk.js";
import { $, el, setAttribute, setText, toast } from "./dom.js";
import { Market } from "./market.js";
import { Overview } from "./overview.js";
import { forgetKey, readKey, rememberedKeys, rememberKey } from "./keys.js";
import { Session } from "./session.js";
import { SettlementView } from "./settlement.js";
import { Ticket } from "./ticket.js";
import * as times from "./times.js";
import { Wire } from "./wire.js";

const VIEWS = ["overview", "contract", "settlement", "account"];
const LINKS = { open: "live", connecting: "connecting", closed: "no connection" };
const THEMES = [["", "Auto", "as the system has them"], ["light", "Light", "always light"], ["dark", "Dark", "always dark"]];

const wire = new Wire(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/v1`);
const session = new Session(wire);
const market = new Market(wire);
const overview = new Overview(market);
const ticket = new Ticket(session, market, openLogon);
const contract = new Contract(market, session, (px, side) => ticket.takeOver(px, side));
const settlement = new SettlementView(market);
const desk = new Desk(session, market, (proof) => {
  location.hash = "#/settlement";
  settlement.check(proof);
});

// --- Addresses -------------------------------------------------------------------------------------------------------

let view = null;

function route() {
  const [, name = "", symbol = ""] = location.hash.split("/");
  const wanted = { book: "contract", settlement: "settlement", account: "account" }[name] ?? "overview";
  if (wanted === "contract" && !symbol) {
    const first = firstContract();
    if (first) location.replace(`#/book/${first.sym}`);
    else market.addEventListener("instruments", route, { once: true });
  }
  if (view !== wanted) turn(wanted);
  if (wanted === "contract" && symbol && symbol !== contract.symbol) contract.show(symbol);
  document.title = wanted === "contract" && symbol ? `${symbol}, Wellhead` : "Wellhead: the spot market for GPU-hours";
}

/** The nearest hour; where hours fly past, the farthest, which stays a while. */
function firstContract() {
  const open = market.open().sort((a, b) => a.start - b.start);
  const start = open.at(wire.speed > 10 ? -1 : 0)?.start;
  return open.find((one) => one.start === start);
}

function turn(wanted) {
  if (view === "overview") overview.hide();
  if (view === "contract") contract.hide();
  const isFirst = view === null;
  view = wanted;
  for (const name of VIEWS) $(`view-${name}`).hidden = name !== wanted;
  for (const link of document.querySelectorAll("[data-nav]")) setAttribute(link, "aria-current", link.dataset.nav === wanted ? "page" : null);
  if (wanted === "overview") overview.show();
  if (wanted === "settlement") settlement.show();
  showDesk();
  if (!isFirst) {
    $("main").focus({ preventScroll: true });
    scrollTo(0, 0);
  }
}

function showDesk() {
  $("desk").hidden = session.account === null || !["contract", "account"].includes(view);
}

addEventListener("hashchange", route);

// --- The bar ---------------------------------------------------------------------------------------------------------

function showLink() {
  setAttribute($("link"), "data-state", wire.state);
  setText($("link-text"), LINKS[wire.state]);
}

function showLogon() {
  setText($("logon"), session.account === null ? "Log on" : `Log off ${session.account}`);
  setAttribute($("logon"), "class", session.account === null ? "main" : "quiet");
  showDesk();
}

function tick() {
  if (wire.hello) {
    setText($("clock-time"), times.clock(wire.marketUs()));
    const speed = wire.speed > 1 ? `, ${wire.speed} times as fast` : wire.speed === 0 ? ", stands still" : "";
    setText($("clock-note"), `${times.day(wire.marketUs())} UTC${speed}`);
  }
  overview.tick();
  contract.tick();
}

function setTheme(theme) {
  const [, label, words] = THEMES.find(([name]) => name === theme);
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  setText($("theme"), label);
  setAttribute($("theme"), "aria-label", `${label}: colours ${words}`);
  document.dispatchEvent(new Event("colours"));
}

function keepTheme(theme) {
  try {
    localStorage.setItem("theme", theme);
  } catch {
    // Chosen for this visit, then.
  }
}

$("theme").addEventListener("click", () => {
  const at = THEMES.findIndex(([name]) => name === (document.documentElement.dataset.theme ?? ""));
  const [next] = THEMES[(at + 1) % THEMES.length];
  setTheme(next);
  keepTheme(next);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => document.dispatchEvent(new Event("colours")));

$("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const wanted = $("search-symbol").value.trim().toUpperCase();
  const found = market.instruments.has(wanted) ? wanted : market.open().map((one) => one.sym).find((symbol) => symbol.startsWith(wanted));
  if (wanted && found) location.hash = `#/book/${found}`;
  else toast(`There is no contract ${wanted}.`);
});
$("search-symbol").addEventListener("focus", () => {
  const symbols = market.open().slice(0, 500);
  $("symbols").replaceChildren(...symbols.map((one) => Object.assign(document.createElement("option"), { value: one.sym })));
});

// --- The log-on ------------------------------------------------------------------------------------------------------

async function openLogon() {
  setText($("logon-answer"), "");
  $("logon-dialog").showModal();
  await showRemembered();
}

/** A button for each remembered key, to log on with it, and one to forget it. */
async function showRemembered() {
  const known = await rememberedKeys().catch(() => []); // a browser that keeps nothing has none
  $("remembered").hidden = !known.length;
  const forget = async ({ key }) => {
    await forgetKey(key);
    await showRemembered();
    $("key-text").focus();
  };
  $("remembered").replaceChildren(...known.map((one) => el("li", {},
    el("button", { type: "button", class: "main", click: () => enter(one, one.cod) }, `Log on as ${one.account} with ${one.key}`),
    el("button", { type: "button", "aria-label": `Forget the key ${one.key}`, click: () => forget(one) }, "Forget"))));
}

async function logon(event) {
  event.preventDefault();
  setText($("logon-answer"), "");
  try {
    const content = $("key-text").value;
    $("key-id-row").hidden = content.trim().startsWith("{") || !content.trim();
    const credentials = await readKey(content, $("key-id").value.trim());
    await enter(credentials, $("key-cod").checked, $("key-remember").checked);
  } catch (error) {
    setText($("logon-answer"), error.message);
  }
}

async function enter(credentials, cod, isToKeep = false) {
  try {
    await session.logon(credentials, cod);
    if (isToKeep) await rememberKey({ ...credentials, account: session.account, cod });
  } catch (error) {
    setText($("logon-answer"), error.message);
    if (session.account === null) return;
    toast(error.message); // it is in, but could not be remembered
  }
  $("key-text").value = "";
  $("key-remember").checked = false;
  $("logon-dialog").close();
  toast(`Logged on as ${session.account}.`);
  showLogon();
  desk.loadStatements();
}

$("logon").addEventListener("click", () => (session.account === null ? openLogon() : session.logoff()));
$("account-logon").addEventListener("click", openLogon);
$("logon-close").addEventListener("click", () => $("logon-dialog").close());
$("logon-form").addEventListener("submit", logon);
$("key-file").addEventListener("change", async (event) => {
  const [file] = event.target.files;
  if (!file) return;
  setText($("key-file-name"), file.name);
  $("key-text").value = await file.text();
  event.target.value = ""; // the same file can be chosen again
});

// --- What happens ----------------------------------------------------------------------------------------------------

wire.addEventListener("state", showLink);
session.addEventListener("change", showLogon);
session.addEventListener("end", (event) => {
  showLogon();
  toast(`Logged off: ${event.detail}.`);
});
session.addEventListener("resolved", ({ detail }) => toast(detail.known ? "The order got through before the connection was lost." : "The order did not get through."));

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, textarea, select") || $("logon-dialog").open) return;
  if (event.key === "/") $("search-symbol").focus();
  else if (view === "contract" && event.key === "b") ticket.chooseSide("buy");
  else if (view === "contract" && event.key === "s") ticket.chooseSide("sell");
  else return;
  event.preventDefault();
});

setTheme(document.documentElement.dataset.theme ?? "");
setInterval(tick, 250);
wire.connect();
showLink();
route();
