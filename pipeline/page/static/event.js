// One event: its scores on an axis, evidence that is gone is said to be, T and F label it, the MLLM is asked again.

import { text } from "./base.js";
import { send } from "./api.js";
import { Axis } from "./axis.js";
import { Series } from "./series.js";

const KNOWN_MASS = 0.5;

const place = document.getElementById("scores");
if (place) {
  const found = JSON.parse(place.dataset.scores);
  const decided_ms = Date.parse(place.dataset.at);
  const end_s = found.at(-1).end_s;
  const scores = found.map((one) => ({ at_ms: decided_ms - (end_s - one.end_s) * 1000, score: one.score, known: one.mass >= KNOWN_MASS }));
  const axis = new Axis(Math.max((decided_ms - scores[0].at_ms) / 1000 + 4, 20));
  new Series(place, axis, text("event.scores"), JSON.parse(place.dataset.rule)).show(scores);
  axis.advance(decided_ms + 2000);
}

const replay = document.getElementById("replay");
if (replay) {
  const said = document.getElementById("replayed");
  replay.hidden = false;
  replay.addEventListener("click", async () => {
    replay.disabled = true;
    said.textContent = text("event.replaying");
    try {
      const { now, then, same, tokens, notes } = await (await send("POST", `v1/events/${replay.dataset.event}/replay`, {})).json();
      const shown = { now: now.value ?? now.verdict, score: now.score.toFixed(2), then: then.value ?? then.verdict, before: then.score.toFixed(2), tokens };
      said.textContent = [text(same ? "event.replayed_same" : "event.replayed", shown), ...notes].join(" ");
    } catch (problem) {
      said.textContent = problem.message;
    }
    replay.disabled = false;
  });
}

for (const image of document.querySelectorAll("img[data-gone]")) {
  const gone = () => {
    image.hidden = true;
    document.getElementById(image.dataset.gone).hidden = false;
  };
  if (image.complete && !image.naturalWidth) gone();
  image.addEventListener("error", gone);
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || /INPUT|SELECT|TEXTAREA/.test(event.target.tagName)) return;
  const label = { t: "true", f: "false" }[event.key];
  if (label) document.querySelector(`#labels button[value="${label}"]`)?.click();
});
