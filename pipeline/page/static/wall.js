// The wall: pictures and states of the tiles that are to be seen, all of them by one request.

import { localTimes, make, number, span, text } from "./base.js";
import { draw, tiles } from "./api.js";
import { alarmsOf, showState } from "./state.js";

const EVERY_MS = 2000;
/** @type {Map<string, HTMLElement>} */
const seen = new Map();
const pictured = new Map();
const wall = document.getElementById("wall");
let timer = 0;

const observer = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) seen.set(target.dataset.stream, complete(target));
    else seen.delete(target.dataset.stream);
  }
  soon(60);
}, { rootMargin: "80px" });

/** A tile with all its parts: those that were below the screen at first come without. @param {HTMLElement} tile */
function complete(tile) {
  if (tile.querySelector("canvas")) return tile;
  tile.querySelector(".picture").prepend(make("canvas", { width: 320, height: 180, "aria-hidden": "true" }));
  tile.append(document.getElementById("tile-facts").content.cloneNode(true));
  return tile;
}

/** @param {number} ms */
function soon(ms) {
  clearTimeout(timer);
  timer = setTimeout(refresh, ms);
}

async function refresh() {
  if (document.hidden || !seen.size) return;
  const known = new Map([...seen.keys()].slice(0, 200).map((slug) => [slug, pictured.get(slug) || 0]));
  try {
    const { status, pictures } = await tiles(known, 320);
    for (const [slug, one] of Object.entries(status)) if (seen.has(slug)) show(seen.get(slug), one);
    for (const [slug, picture] of pictures) {
      if (seen.has(slug)) draw(seen.get(slug).querySelector("canvas"), picture);
      pictured.set(slug, known.get(slug));
    }
  } catch {
    // what was shown stays; api.js has said that the service is away
  }
  soon(EVERY_MS);
}

/** @param {HTMLElement} tile @param {any} status null: it is there no more */
function show(tile, status) {
  const part = (name) => tile.querySelector(`[data-part="${name}"]`);
  const state = status?.state || "ended";
  showState(part("state"), state);
  tile.dataset.state = state;
  tile.querySelector(".picture").classList.toggle("stale", state !== "up");
  part("reason").textContent = status ? status.reason : text("refused.404");
  part("alarms").replaceChildren(...alarmsOf(status?.alarms ?? []));
  if (!status) return;
  part("spent").textContent = number(status.spent);
  part("granted").textContent = number(status.granted);
  part("lag").textContent = span(status.lag_s);
  part("step").textContent = `${status.step} ${text(`ladder.${status.step_name}`)}`;
  if (part("node")) part("node").textContent = status.node || "–";
}

if (wall) {
  for (const tile of wall.querySelectorAll(".tile")) observer.observe(tile);
  document.addEventListener("visibilitychange", () => soon(0));
  addEventListener("pageshow", () => soon(0));
}
for (const select of document.querySelectorAll(".filters select")) select.addEventListener("change", () => select.form.requestSubmit());
localTimes();
