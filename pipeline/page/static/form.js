// Forms: what was typed is never lost, a probe shows what a stream is and its first picture before it is attached.

import { make, text } from "./base.js";
import { ask, draw } from "./api.js";

const form = document.querySelector("form.entry");
let typed = false;
form.addEventListener("input", () => (typed = true));
form.addEventListener("submit", () => (typed = false));
addEventListener("beforeunload", (event) => typed && event.preventDefault());

for (const group of form.querySelectorAll("details.group"))
  if (group.querySelector(".wrong")) group.open = true;
form.addEventListener("invalid", (event) => event.target.closest("details")?.setAttribute("open", ""), true);

const probe = form.querySelector('button[value="probe"]');
const place = document.getElementById("probe");

/** The spec of the form as the server reads it. */
const body = () => new URLSearchParams(new FormData(form));

async function look() {
  place.hidden = false;
  place.replaceChildren(make("p", {}, text("attach.waiting")));
  probe.disabled = true;
  try {
    const spec = Object.fromEntries([...body()].filter(([name, value]) => name === "url" && value));
    const asked = (path) => ask(path, { method: "POST", body: JSON.stringify(spec), headers: { "Content-Type": "application/json" } });
    const found = await (await asked("v1/streams/probe")).json();
    show(found);
    await picture(await asked("v1/streams/preview.jpg"));
  } catch (problem) {
    const said = text("attach.no_picture", { why: problem.message });
    if (place.querySelector("dl")) place.append(make("p", { class: "error" }, said));
    else place.replaceChildren(make("p", { class: "error" }, problem.message));
  } finally {
    probe.disabled = false;
    place.scrollIntoView({ block: "nearest" });
  }
}

/** @param {any} found */
function show(found) {
  const facts = [
    ["codec", found.codec],
    ["size", `${found.width} × ${found.height} ${text("units.px")}`],
    ...(found.fps ? [["pace", Number(found.fps).toFixed(1)]] : []),
    ["kind", text(found.live ? "attach.live" : "attach.recording")],
  ];
  const list = make("dl", { class: "inline-facts" }, ...facts.map(([name, value]) => make("div", {}, make("dt", {}, text(`attach.${name}`)), make("dd", {}, value))));
  const advice = found.advice.map((line) => make("li", {}, line));
  place.replaceChildren(make("h2", {}, text("attach.found")), list, make("ul", {}, ...advice), make("p", { class: "muted" }, text("attach.waiting")));
}

/** @param {Response} response */
async function picture(response) {
  const canvas = make("canvas", { role: "img", "aria-label": text("attach.first_picture") });
  place.lastElementChild.replaceWith(make("h3", {}, text("attach.first_picture")), make("div", { class: "picture" }, canvas));
  await draw(canvas, await response.blob());
}

probe?.addEventListener("click", (event) => {
  event.preventDefault();
  if (form.elements.url.reportValidity()) look();
});
