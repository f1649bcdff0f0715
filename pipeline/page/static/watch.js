// "Try it": thresholds as sliders over the kept scores of a watch; what would open and clear is shown at once.

import { make, text } from "./base.js";
import { send } from "./api.js";
import { Axis } from "./axis.js";
import { hopOf, recentHops, scoresOf } from "./answers.js";
import { judged } from "./judge.js";
import { listen } from "./live.js";
import { Series } from "./series.js";

const MINUTES = 10;
const MOST_STREAMS = 6;
const HOURS = 24;
const SETTLED_MS = 400;
const place = document.getElementById("try");
const form = document.querySelector("form.entry");

/** @param {string} name of a field @param {number} other where it is empty */
const value = (name, other) => Number(form.elements[name]?.value.replace(",", ".") || form.elements[name]?.placeholder || other);
const pair = () => [0, 1].map((i) => Number(form.elements[`confirm.${i}`]?.value) || 1);

if (place) {
  const rule = { open_at: value("open_at", 0.7), clear_at: value("clear_at", 0.3), confirm: pair() };
  const axis = new Axis(MINUTES * 60);
  const outcome = document.getElementById("try-outcome");
  const byService = make("p", { role: "status" });
  const shown = [];

  function judge() {
    rule.confirm = pair();
    for (const one of shown) one.chart.tune({ ...rule });
    const count = shown.reduce((sum, one) => sum + judged(one.chart.scores, rule).length, 0);
    outcome.textContent = text("watch.try_from", { count });
  }

  let timer = 0;
  /** What the service says of all that it has kept, once the sliders rest. */
  function askService() {
    clearTimeout(timer);
    if (!place.dataset.tries) return;
    timer = setTimeout(async () => {
      try {
        const body = { since_s: HOURS * 3600, settings: { ...rule } };
        const { items } = await (await send("POST", `v1/watches/${place.dataset.watch}/test`, body)).json();
        const sum = (name) => items.reduce((all, one) => all + one[name], 0);
        byService.textContent = text("watch.try_judged", { opened: sum("opened"), before: sum("opened_before"), hours: HOURS });
      } catch (problem) {
        byService.textContent = problem.message;
      }
    }, SETTLED_MS);
  }

  /** @param {"open_at" | "clear_at"} name */
  function slider(name) {
    const said = make("output", { class: "number", for: `try-${name}` }, rule[name].toFixed(2));
    const input = make("input", { id: `try-${name}`, type: "range", min: 0, max: 1, step: 0.01, value: rule[name] });
    input.addEventListener("input", () => {
      rule[name] = Number(input.value);
      said.textContent = rule[name].toFixed(2);
      judge();
      askService();
    });
    return make("div", { class: "slider" }, make("label", { for: input.id }, text(`watch.fields.${name}.label`)), input, said);
  }

  function use() {
    for (const name of ["open_at", "clear_at"]) {
      form.elements[name].value = String(rule[name]);
      form.elements[name].closest("details")?.setAttribute("open", "");
      form.elements[name].dispatchEvent(new Event("input", { bubbles: true }));
    }
    form.elements.open_at.focus();
  }

  const charts = document.getElementById("try-charts");
  charts.before(slider("open_at"), slider("clear_at"));
  if (!form.elements.open_at?.disabled) outcome.after(make("button", { type: "button", onclick: use }, text("watch.use")));
  outcome.after(byService);
  for (const stream of place.dataset.streams.split(",").slice(0, MOST_STREAMS)) {
    const room = make("div", { class: "chart low" });
    charts.append(make("h3", {}, stream), room);
    const one = { stream, chart: new Series(room, axis, stream, { ...rule }), hops: await recentHops(stream, MINUTES * 60) };
    one.chart.show(scoresOf(one.hops, place.dataset.watch));
    shown.push(one);
  }
  const newest = Math.max(0, ...shown.map((one) => one.hops.at(-1)?.at_ms ?? 0));
  const oldest = Math.min(...shown.map((one) => one.hops[0]?.at_ms ?? Date.now()));
  axis.show(Math.min(Math.max((Date.now() - oldest) / 1000 + 5, 60), MINUTES * 60));
  axis.advance(newest && Date.now() - newest > 60_000 ? newest + 2000 : Date.now());
  judge();
  listen("v1/answers/stream", {}, (item) => {
    const one = shown.find((each) => each.stream === item.stream);
    if (!one) return;
    one.hops = [...one.hops, hopOf(item, one.hops.at(-1))].slice(-1200);
    one.chart.show(scoresOf(one.hops, place.dataset.watch));
    axis.advance(Date.now());
    judge();
  });
}
