// What every module needs: links below any path, texts, numbers, times, elements.

const root = document.documentElement;

/** @param {string} path from the page's root, without a slash @returns {string} */
export const link = (path) => new URL(root.dataset.base + path, location.href).href;

const found = await (await fetch(new URL("texts.json", import.meta.url))).json();

/** A text by its dotted name, with {values} filled in. @param {string} name @param {Record<string, unknown>} [values] */
export function text(name, values = {}) {
  let at = found;
  for (const part of name.split(".")) at = at?.[part];
  if (typeof at !== "string") return name;
  return at.replace(/\{(\w+)\}/g, (whole, key) => (key in values ? String(values[key]) : whole));
}

/** @param {number | null | undefined} value @param {number} [digits] */
export const number = (value, digits = 0) =>
  value == null ? "–" : value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }).replaceAll(",", "\u202f");

/** Seconds in the largest unit that they fill. @param {number | null | undefined} seconds */
export function span(seconds) {
  if (seconds == null) return "–";
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60]])
    if (seconds >= 2 * size) return `${(seconds / size).toFixed(0)} ${unit}`;
  return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
}

const day = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });

/** Put the times below an element into the viewer's zone; UTC is in their titles. @param {ParentNode} [within] */
export function localTimes(within = document) {
  for (const one of within.querySelectorAll("time[datetime]")) {
    const at = new Date(one.dateTime);
    if (Number.isNaN(at.getTime())) continue;
    one.title = at.toISOString().replace("T", " ").replace(/\.\d+Z$/, "") + " UTC";
    one.textContent = (at.toDateString() === new Date().toDateString() ? clock : day).format(at);
  }
}

/** @param {Date} at */
export const clockTime = (at) => clock.format(at);

/** An element with attributes and children. @param {string} name @param {Record<string, unknown>} [set] @param {...(Node|string)} inner */
export function make(name, set = {}, ...inner) {
  const one = document.createElement(name);
  for (const [key, value] of Object.entries(set)) {
    if (key.startsWith("on")) one.addEventListener(key.slice(2), value);
    else if (value === true) one.setAttribute(key, "");
    else if (value !== false && value != null) one.setAttribute(key, String(value));
  }
  one.append(...inner);
  return one;
}

/** A colour of the look. @param {string} name */
export const colour = (name) => getComputedStyle(root).getPropertyValue(`--${name}`).trim();
