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

/** Set a text where it differs: nothing is laid out again for nothing. */
export function setText(node, text) {
  if (node.shown !== text) {
    node.shown = text;
    node.textContent = text;
  }
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

/** Call `draw` once in the next frame, however often this is called before, and not more often than every `pause_ms`. */
export function painter(draw, pause_ms = 0) {
  let asked = false;
  let last_ms = -Infinity;
  const step = (now_ms) => {
    if (now_ms - last_ms < pause_ms) {
      requestAnimationFrame(step);
      return;
    }
    asked = false;
    last_ms = now_ms;
    draw();
  };
  return () => {
    if (!asked) {
      asked = true;
      requestAnimationFrame(step);
    }
  };
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
