// Small helpers for the document. Text goes in as text, never as markup.

/** The element with this id. */
export const $ = (id) => document.getElementById(id);

/** A new element: `el("td", { class: "num" }, "2.65")`. Properties that are functions listen to the event of their name. */
export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

/** Set a text where it differs: nothing is laid out again for nothing. A text that is there changes in its place. */
export function setText(node, text) {
  if (node.shown === text) return;
  node.shown = text;
  const only = node.firstChild;
  if (only && only === node.lastChild && only.nodeType === Node.TEXT_NODE) only.data = text;
  else node.textContent = text;
}

/** Set or take away an attribute where it differs. */
export function setAttribute(node, name, value) {
  if (value == null) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else if (node.getAttribute(name) !== value) {
    node.setAttribute(name, value);
  }
}

/** Rows of a table body kept in step with items: `make(item)` builds a row, `fill(row, item)` updates it. */
export function keepRows(body, items, keyOf, make, fill = () => {}) {
  const rows = (body.rowsByKey ??= new Map());
  const wanted = new Set();
  let at = body.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    wanted.add(key);
    let row = rows.get(key);
    if (!row) rows.set(key, (row = make(item)));
    fill(row, item);
    if (row === at) at = at.nextElementSibling;
    else body.insertBefore(row, at);
  }
  for (const [key, row] of rows) {
    if (!wanted.has(key)) {
      row.remove();
      rows.delete(key);
    }
  }
}

const due = new Set(); // one in a frame, so that no frame is late because much has changed

function drawNext() {
  const [step] = due;
  due.delete(step);
  if (due.size) requestAnimationFrame(drawNext);
  step();
}

function inAFrame(step) {
  if (!due.size) requestAnimationFrame(drawNext);
  due.add(step);
}

/**
 * Call `draw` once, in the next frame that no other drawing has, however often this is called before, and not more often
 * than every `pause_ms`. With a `node`: once it has drawn (`draw` did not return false) only while that is in sight. What
 * nobody sees is drawn when it comes into it.
 */
export function painter(draw, pause_ms = 0, node = null) {
  let asked = false;
  let late = false;
  let last_ms = -Infinity;
  let hasDrawn = false;
  let isSeen = true;
  const step = () => {
    asked = false;
    late = !isSeen && hasDrawn;
    if (late) return;
    hasDrawn = draw() !== false;
    if (hasDrawn) last_ms = performance.now();
  };
  const frame = () => inAFrame(step);
  const ask = () => {
    if (asked) return;
    asked = true;
    const wait_ms = last_ms + pause_ms - performance.now();
    if (wait_ms > 0) setTimeout(frame, wait_ms);
    else frame();
  };
  if (node) {
    const look = ([entry]) => {
      isSeen = entry.isIntersecting;
      if (isSeen && late) ask();
    };
    new IntersectionObserver(look).observe(node);
  }
  return ask;
}

const TOAST_MS = 6000;

/** Tell something, for a moment, also to a screen reader. */
export function toast(text) {
  const note = el("p", {}, text);
  $("toasts").append(note);
  setTimeout(() => note.remove(), TOAST_MS);
}

/** A file for the reader to keep. */
export function download(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

/** Tabs or pressed buttons: mark one of a group. */
export function press(buttons, chosen) {
  for (const button of buttons) button.setAttribute("aria-pressed", String(button === chosen));
}
