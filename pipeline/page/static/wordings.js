// Wordings compared on a recording: a file of this browser is sent, asked over by the service's MLLM, and forgotten. The
// figures are kept with the watch, and shown by the screen when it is loaded again; where they could not be, it says so.

import { text } from "./base.js";
import { ask } from "./api.js";

const place = document.getElementById("compare");
const outcome = document.getElementById("compare-outcome");
const button = place?.querySelector("button");

/** @param {string} name of an input */
const typed = (name) => document.getElementById(`compare-${name}`);

/** @param {File} file */
function queryOf(file) {
  const query = new URLSearchParams({ name: file.name });
  for (const line of typed("words").value.split("\n")) if (line.trim()) query.append("wording", line.trim());
  if (typed("stream").value) query.set("stream", typed("stream").value);
  if (typed("began").value) query.set("began", new Date(typed("began").value).toISOString());
  return query;
}

async function compare(event) {
  event.preventDefault();
  const [file] = typed("file").files;
  if (!file) return;
  button.disabled = true;
  outcome.textContent = text("recording.busy", { name: file.name });
  try {
    const headers = { "Content-Type": "application/octet-stream" };
    const path = `v1/watches/${place.dataset.watch}/wordings?${queryOf(file)}`;
    const found = await (await ask(path, { method: "POST", body: file, headers })).json();
    if (found.kept) return location.replace(`${location.pathname}?said=compared#wordings`);
    outcome.textContent = text("wordings.not_kept", { found: found.proposed ?? found.reason });
    button.disabled = false;
  } catch (problem) {
    outcome.textContent = problem.message;
    button.disabled = false;
  }
}

if (place) place.hidden = false;
place?.addEventListener("submit", compare);
