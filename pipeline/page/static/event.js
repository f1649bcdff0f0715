// One event: evidence that is gone is said to be; T and F label it; the MLLM is asked again.

import { text } from "./base.js";
import { send } from "./api.js";

const replay = document.getElementById("replay");
if (replay) {
  const said = document.getElementById("replayed");
  replay.hidden = false;
  replay.addEventListener("click", async () => {
    replay.disabled = true;
    said.textContent = text("event.replaying");
    try {
      const { now, then } = await (await send("POST", `v1/events/${replay.dataset.event}/replay`, {})).json();
      const shown = { now: now.verdict, score: now.score.toFixed(2), then: then.verdict, before: then.score.toFixed(2) };
      said.textContent = text("event.replayed", shown);
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
