// The list of watches: how each stands, every few seconds while somebody looks.

import { read } from "./api.js";
import { showState, standingState } from "./state.js";

const EVERY_MS = 3000;
const table = document.getElementById("watches");

async function refresh() {
  if (document.hidden) return;
  const { items } = await read("v1/watches?limit=1000");
  for (const watch of items) {
    const row = table.querySelector(`[data-watch="${CSS.escape(watch.slug)}"]`);
    if (row) show(row, watch);
  }
}

/** @param {HTMLElement} row @param {any} watch */
function show(row, watch) {
  const all = Object.values(watch.streams);
  const scores = all.map((one) => one.score).filter((score) => score != null);
  const states = new Set(all.map(standingState));
  const state = watch.spec.paused ? "paused" : watch.fault ? "refused" : ["open", "clear", "unknown"].find((one) => states.has(one)) || "unasked";
  showState(row.querySelector('[data-part="state"]'), state);
  row.querySelector('[data-part="score"]').textContent = scores.length ? Math.max(...scores).toFixed(2) : "–";
}

if (table) {
  const again = () => refresh().catch(() => {}); // api.js says so where the service is away
  setInterval(again, EVERY_MS);
  document.addEventListener("visibilitychange", again);
}
