// "Try it" on a recording: a file of this browser is sent, tried by the service's MLLM, and forgotten.

import { make, number, span, text } from "./base.js";
import { ask, draw } from "./api.js";
import { TRIED, pair, value } from "./tried.js";

const place = document.getElementById("recording");
const outcome = document.getElementById("recording-outcome");
const button = place?.querySelector("button");

const settings = () => JSON.stringify({ ...Object.fromEntries(TRIED.map((name) => [name, value(name)])), confirm: pair() });

/** @param {string} base64 of a JPEG */
function picture(base64) {
  const canvas = make("canvas", { width: 320, height: 180 });
  const bytes = Uint8Array.from(atob(base64), (one) => one.charCodeAt(0));
  draw(canvas, new Blob([bytes], { type: "image/jpeg" }));
  return make("div", { class: "picture" }, canvas);
}

/** @param {any} event of a trial */
function line(event) {
  const what = text(`recording.${event.type === "watch.cleared" ? "cleared" : "opened"}`, { at: span(event.at_s), since: span(event.since_s) });
  return make("li", {}, ...(event.picture ? [picture(event.picture)] : []), make("span", {}, [what, event.value, event.text].filter(Boolean).join(" · ")));
}

/** @param {any} found */
function show(found) {
  const facts = { opened: number(found.opened), seconds: span(found.seconds), factor: found.realtime_factor ?? "–", tokens: number(found.tokens), day: number(found.tokens_per_day ?? 0) };
  const early = found.ended_early ? [make("p", { class: "error" }, text("recording.early", { reason: found.ended_early }))] : [];
  outcome.replaceChildren(make("p", {}, text("recording.result", facts)), ...early, make("ul", { class: "found" }, ...found.events.map(line)));
}

async function tryIt(event) {
  event.preventDefault();
  const [file] = place.querySelector("input").files;
  if (!file) return;
  button.disabled = true;
  outcome.textContent = text("recording.busy", { name: file.name });
  try {
    const query = new URLSearchParams({ name: file.name, settings: settings() });
    const headers = { "Content-Type": "application/octet-stream" };
    show(await (await ask(`v1/watches/${place.dataset.watch}/recording?${query}`, { method: "POST", body: file, headers })).json());
  } catch (problem) {
    outcome.textContent = problem.message;
  }
  button.disabled = false;
}

place?.addEventListener("submit", tryIt);
