// One stream: its newest picture, what was allocated, the scores of its watches, its events. One time axis for all.

import { clockTime, link, localTimes, make, number, span, text } from "./base.js";
import { draw, read, tiles } from "./api.js";
import { Axis } from "./axis.js";
import { hopOf, recentHops, scoresOf } from "./answers.js";
import { listen } from "./live.js";
import { Series } from "./series.js";
import { Strip } from "./strip.js";
import { alarmsOf, eventName, eventState, showState, standingState, stateOf } from "./state.js";
import { Overlay } from "./overlay.js";

const PICTURE_MS = 500;
const slug = document.getElementById("stream").dataset.stream;
const id = (name) => document.getElementById(name);
const range = id("range");
const axis = new Axis(Number(range.value) * 60);
const overlay = new Overlay(id("overlay"), id("live"), id("stream").dataset);
const strip = new Strip(id("strip"), axis);
const charts = [...document.querySelectorAll("[data-watch]")].map((place) => {
  const rule = { open_at: Number(place.dataset.openAt), clear_at: Number(place.dataset.clearAt), confirm: JSON.parse(place.dataset.confirm) };
  return { place, watch: place.dataset.watch, chart: new Series(place.querySelector('[data-part="chart"]'), axis, place.querySelector("a").textContent, rule) };
});
/** @type {import("./strip.js").Hop[]} */
let hops = [];
const known = new Map([[slug, 0]]);

async function picture() {
  if (document.hidden) return;
  try {
    const { status, pictures } = await tiles(known, 960);
    if (pictures.has(slug)) await draw(id("live"), pictures.get(slug)), overlay.paint();
    if (status[slug]) show(status[slug]);
    else return showState(id("state"), "ended"), (id("reason").textContent = text("refused.404"));
  } catch (error) {
    if (error.status === 404) return;
  }
  setTimeout(picture, PICTURE_MS);
}

/** @param {any} status */
function show(status) {
  showState(id("state"), status.state);
  id("reason").textContent = status.reason;
  id("alarms").replaceChildren(...alarmsOf(status.alarms));
  id("live").parentElement.classList.toggle("stale", status.state !== "up");
  for (const name of ["spent", "granted", "hops", "skipped", "frames_lost"]) id(name).textContent = number(status[name]);
  id("lag").textContent = span(status.lag_s);
  id("decided").textContent = span(status.stream_s);
  id("step").textContent = `${status.step} ${text(`ladder.${status.step_name}`)}`;
  id("node").textContent = status.node;
  id("node-row").hidden = !status.node;
  id("captured").textContent = status.captured_at ? `${text("wall.updated")} ${clockTime(new Date(status.captured_at))}.` : "";
  for (const { place, watch } of charts) {
    const standing = status.watches[watch];
    if (!standing) continue;
    showState(place.querySelector('[data-part="state"]'), standingState(standing));
    place.querySelector('[data-part="score"]').textContent = standing.score == null ? "–" : standing.score.toFixed(2);
  }
}

/** What the allocator did with the newest hop, in words. */
function allocated() {
  const record = hops.at(-1)?.record;
  if (!record) return;
  const scale = Math.max(0, ...record.frames.map((frame) => frame[1]));
  if (`${overlay.crop}` !== `${record.crop}`) (overlay.crop = record.crop), overlay.paint();
  const said = { share: `${(100 * scale).toFixed(0)} %`, tokens: number(record.spent) };
  const part = record.crop ? ` ${text("stream.shown_part")}` : "";
  id("shown-at").textContent = text(scale ? "stream.shown_at" : "stream.dropped_now", said) + part;
}

function chart() {
  allocated();
  strip.show(hops);
  for (const one of charts) one.chart.show(scoresOf(hops, one.watch));
}

async function load() {
  hops = await recentHops(slug, Number(range.value) * 60);
  const since = new Date(Date.now() - Number(range.value) * 60_000).toISOString();
  const found = (await read(`v1/events?stream=${slug}&limit=200&since=${encodeURIComponent(since)}`)).items;
  strip.events = found.map((event) => ({ at_ms: Date.parse(event.time), type: event.type }));
  const live = ["up", "connecting", "lost"].includes(id("state").querySelector(".state").className.replace(/.*state-/, ""));
  axis.follow = true;
  axis.advance(live || !hops.length ? Date.now() : hops.at(-1).at_ms + 2000);
  chart();
  return { after: hops.at(-1)?.seq ?? "", events: found[0]?.seq ?? "" };
}

/** @param {any} event */
function happened(event) {
  strip.events.push({ at_ms: Date.parse(event.time), type: event.type });
  const list = id("events");
  if (!list) return;
  const kind = eventState(event.type);
  const score = event.data.score == null ? "" : make("span", { class: "number" }, event.data.score.toFixed(2));
  const line = make("li", { class: "event-line" }, stateOf(kind, eventName(event.type)), make("a", { href: link(`events/${event.id}`) }, event.data.question || event.data.reason || slug), score, make("time", { datetime: event.time }));
  list.prepend(line);
  localTimes(line);
  while (list.children.length > 12) list.lastElementChild.remove();
}

picture();
const begun = await load();
listen("v1/answers/stream", { stream: slug }, (item) => {
  hops.push(hopOf(item, hops.at(-1)));
  hops = hops.filter((hop) => hop.at_ms > Date.now() - Number(range.value) * 60_000);
  chart();
  axis.advance(Date.now());
}, begun.after);
listen("v1/events/stream", { stream: slug }, happened, begun.events);
range.addEventListener("change", () => (axis.show(Number(range.value) * 60), load()));
document.addEventListener("visibilitychange", () => document.hidden || picture());
addEventListener("pageshow", (event) => event.persisted && picture());
