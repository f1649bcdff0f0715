// A state as people see it: a shape and a word, not a colour alone. The shapes are those of macros.html.

import { text } from "./base.js";

const SHAPES = {
  up: '<circle cx="8" cy="8" r="5"/>',
  wait: '<circle class="hollow" cx="8" cy="8" r="4.5" stroke-dasharray="3 2"/>',
  lost: '<path d="M8 1.5 15 14H1z"/>',
  failed: '<path class="hollow" d="M3.5 3.5l9 9m0-9l-9 9"/>',
  paused: '<path d="M3.5 3h3v10h-3zm6 0h3v10h-3z"/>',
  open: '<path d="M8 1l7 7-7 7-7-7z"/>',
  ended: '<rect x="3.5" y="3.5" width="9" height="9"/>',
  unknown: '<circle class="hollow" cx="8" cy="8" r="4.5"/>',
};
const SAME = { ok: "up", clear: "up", connecting: "wait", starting: "wait", trouble: "lost", refused: "failed" };

/** @param {string} name @param {string} [word] by default the name's @returns {HTMLElement} */
export function stateOf(name, word = text(`states.${name}`)) {
  const one = document.createElement("span");
  one.className = `state state-${name}`;
  const shape = SHAPES[SAME[name] || name] || SHAPES.unknown;
  one.innerHTML = `<svg class="icon" viewBox="0 0 16 16" aria-hidden="true">${shape}</svg>`; // of constants only
  const said = document.createElement("span");
  said.textContent = word;
  one.append(said);
  return one;
}

/** Show a state where another stood, if it differs. @param {Element} place @param {string} name */
export function showState(place, name) {
  if (place.dataset.state === name) return;
  place.dataset.state = name;
  place.replaceChildren(stateOf(name));
}

/** The state of a watch on one stream. @param {{is_open: boolean, score: number | null, verdict: string | null}} standing */
export const standingState = (standing) =>
  standing.is_open ? "open" : standing.score == null ? "unasked" : standing.verdict === "unknown" ? "unknown" : "clear";

/** The alarms of a stream's pictures, in words. @param {string[]} found */
export const alarmsOf = (found) => found.map((one) => {
  const shown = stateOf("trouble", text(`alarms.${one}`));
  shown.className = "alarm";
  return shown;
});

const WELL = new Set(["stream.recovered", "stream.restored", "stream.attached", "stream.clear", "stream.mended", "watch.known", "service.restored", "service.heartbeat", "sink.recovered"]);

/** How an event looks. @param {string} type */
export function eventState(type) {
  if (type === "watch.opened" || type === "watch.updated") return "open";
  if (type === "watch.cleared") return "clear";
  if (WELL.has(type)) return "up";
  return type === "stream.ended" ? "ended" : "trouble";
}

/** @param {string} type of an event */
export function eventName(type) {
  const key = `events.types.${type.replace(".", "_")}`;
  const name = text(key);
  return name === key ? type : name;
}
