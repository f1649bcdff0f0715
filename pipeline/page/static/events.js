// The inbox: live, by keyboard, with labels; a notification and a sound for who wants them.

import { link, localTimes, make, text } from "./base.js";
import { send } from "./api.js";
import { listen } from "./live.js";
import { eventName, eventState, stateOf } from "./state.js";

const MOST = 200;
/** Evidence is written by then. */
const WRITTEN_MS = 3000;
const list = document.getElementById("inbox");
const place = document.getElementById("new-events");
const alerts = { on: localStorage.getItem("alerts") === "yes" };
let arrived = 0;

/** @param {any} event @returns {HTMLElement} */
function item(event) {
  const about = event.data.question || event.data.reason || (event.data.name && text(`ladder.${event.data.name}`)) || event.data.warning || event.data.url || event.stream;
  const meta = make("span", { class: "muted small" }, [event.stream, event.watch].filter(Boolean).join(" · "), " · ", make("time", { datetime: event.time }), event.data.score == null ? "" : ` · ${text("event.score")} ${event.data.score.toFixed(2)}`);
  const words = make("span", { class: "inbox-text" }, stateOf(eventState(event.type), eventName(event.type)), make("strong", {}, about), meta);
  const inner = make("a", { class: "inbox-link", href: link(`events/${event.id}`) });
  if (event.watch) inner.append(thumb(event.id));
  inner.append(words);
  const one = make("li", { class: "inbox-item arrived", "data-id": event.id }, inner, make("span", { class: "label-place" }));
  localTimes(one);
  return one;
}

/** The picture of an event that has just come: its evidence is written beside the loop, a moment later. @param {string} id */
function thumb(id) {
  const image = make("img", { alt: text("events.picture"), width: 160, height: 90, class: "gone" });
  image.addEventListener("error", () => image.classList.add("gone"));
  image.addEventListener("load", () => image.classList.remove("gone"));
  setTimeout(() => (image.src = link(`v1/events/${id}/snapshot.jpg`)), WRITTEN_MS);
  return make("span", { class: "thumb" }, image);
}

/** @param {any} event */
function take(event) {
  if (list.querySelector(`[data-id="${CSS.escape(event.id)}"]`)) return;
  document.querySelector(".empty")?.remove();
  list.prepend(item(event));
  while (list.children.length > MOST) list.lastElementChild.remove();
  arrived += 1;
  place.textContent = text("events.new", { count: arrived });
  if (alerts.on && event.type === "watch.opened") alert(event);
}

/** @param {any} event */
function alert(event) {
  if (Notification.permission === "granted") new Notification(event.data.question || event.type, { body: event.stream, tag: event.id });
  const sound = new AudioContext();
  const tone = new OscillatorNode(sound, { frequency: 660 });
  const volume = new GainNode(sound, { gain: 0.08 });
  tone.connect(volume).connect(sound.destination);
  tone.start();
  tone.stop(sound.currentTime + 0.25);
  tone.onended = () => sound.close();
}

/** @param {number} step */
function choose(step) {
  const items = [...list.children];
  const now = items.findIndex((one) => one.classList.contains("chosen"));
  const next = items[Math.min(Math.max(now + step, 0), items.length - 1)];
  items[now]?.classList.remove("chosen");
  next?.classList.add("chosen");
  next?.querySelector("a").focus();
}

/** @param {string} name */
async function label(name) {
  const one = list.querySelector(".chosen");
  if (!one) return;
  const label = one.dataset.label === name ? null : name;
  try {
    await send("PUT", `v1/events/${one.dataset.id}/label`, { label });
  } catch (problem) {
    place.textContent = problem.message;
    return;
  }
  one.dataset.label = label || "";
  one.querySelector(".label-place").replaceChildren(...(label ? [make("span", { class: "tag" }, text(`events.labels.${label}`))] : []));
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || /INPUT|SELECT|TEXTAREA/.test(event.target.tagName)) return;
  const does = { j: () => choose(1), k: () => choose(-1), t: () => label("true"), f: () => label("false") }[event.key];
  if (does) event.preventDefault(), does();
});

for (const image of list.querySelectorAll("img")) {
  if (image.complete && !image.naturalWidth) image.classList.add("gone");
  image.addEventListener("error", () => image.classList.add("gone"));
}
list.addEventListener("focusin", (event) => {
  for (const one of list.children) one.classList.toggle("chosen", one.contains(event.target));
});
if (list.dataset.live) {
  const { stream, watch, after } = list.dataset;
  listen("v1/events/stream", { stream, watch }, take, after || "0");
}
const button = make("button", { type: "button", "aria-pressed": String(alerts.on), onclick: toggle }, text(alerts.on ? "events.alerts_on" : "events.alerts"));
async function toggle() {
  alerts.on = !alerts.on;
  if (alerts.on && "Notification" in window) await Notification.requestPermission();
  localStorage.setItem("alerts", alerts.on ? "yes" : "no");
  button.setAttribute("aria-pressed", String(alerts.on));
  button.textContent = text(alerts.on ? "events.alerts_on" : "events.alerts");
}
document.getElementById("alerts-place").append(button);
for (const select of document.querySelectorAll(".filters select")) select.addEventListener("change", () => select.form.requestSubmit());
