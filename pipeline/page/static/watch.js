// "Try it": thresholds and times as sliders over the kept scores of a watch. What thresholds would do is shown at once;
// the service judges all rules of the form a moment later, as it would have.

import { localTimes, make, text } from "./base.js";
import { send } from "./api.js";
import { Axis } from "./axis.js";
import { hopOf, recentHops, scoresOf } from "./answers.js";
import { judged } from "./judge.js";
import { listen } from "./live.js";
import { Series } from "./series.js";
import { TRIED, form, pair, value } from "./tried.js";

const MINUTES = 10;
const MOST_STREAMS = 6;
const MOST_LISTED = 8;
const HOURS = 24;
const SETTLED_MS = 400;
const SLIDERS = { open_at: [1, 0.01], clear_at: [1, 0.01], hold_s: [120, 1], absent_s: [120, 1] };
const place = document.getElementById("try");

/** @param {string} name */
const holds = (name) => value(name) ?? Number(form.elements[name]?.placeholder || 0);

/** When it would be open, by the service's events. @param {any[]} found @returns {[number, number | null][]} */
function spansOf(found) {
  const spans = [];
  for (const { type, captured_at } of found) {
    if (type === "watch.opened") spans.push([Date.parse(captured_at), null]);
    else if (type === "watch.cleared" && spans.length) spans.at(-1)[1] = Date.parse(captured_at);
  }
  return spans;
}

class Trial {
  constructor() {
    this.rule = Object.fromEntries(TRIED.map((name) => [name, holds(name)]));
    this.moved = new Set();
    this.axis = new Axis(MINUTES * 60);
    this.shown = [];
    this.timer = 0;
    this.outcome = document.getElementById("try-outcome");
    this.byService = make("div", { role: "status" });
    const charts = document.getElementById("try-charts");
    charts.before(...Object.keys(SLIDERS).map((name) => this.slider(name)));
    if (!form.elements.open_at?.disabled) this.outcome.after(make("button", { type: "button", onclick: () => this.use() }, text("watch.use")));
    this.outcome.after(this.byService);
    form.addEventListener("input", () => this.ask());
  }

  /** @param {string} name of a rule */
  slider(name) {
    const [max, step] = SLIDERS[name];
    const said = (at) => (max === 1 ? at.toFixed(2) : `${at} s`);
    const output = make("output", { class: "number", for: `try-${name}` }, said(this.rule[name]));
    const input = make("input", { id: `try-${name}`, type: "range", min: 0, max: Math.max(max, this.rule[name]), step, value: this.rule[name] });
    input.addEventListener("input", () => {
      this.rule[name] = Number(input.value);
      this.moved.add(name);
      output.textContent = said(this.rule[name]);
      this.judge();
      this.ask();
    });
    return make("div", { class: "slider" }, make("label", { for: input.id }, text(`watch.fields.${name}.label`)), input, output);
  }

  /** By the thresholds alone, at once. */
  judge() {
    const rule = { ...this.rule, confirm: pair() };
    for (const one of this.shown) one.chart.tune(rule);
    const count = this.shown.reduce((sum, one) => sum + judged(one.chart.scores, rule).length, 0);
    this.outcome.textContent = text("watch.try_from", { count });
  }

  settings() {
    const typed = Object.fromEntries(TRIED.map((name) => [name, this.moved.has(name) ? this.rule[name] : value(name)]));
    return { ...typed, confirm: pair() };
  }

  /** By the service, once the sliders rest. */
  ask() {
    clearTimeout(this.timer);
    this.timer = setTimeout(async () => {
      try {
        const body = { since_s: HOURS * 3600, settings: this.settings() };
        const { items } = await (await send("POST", `v1/watches/${place.dataset.watch}/test`, body)).json();
        this.answered(items);
      } catch (problem) {
        this.byService.textContent = problem.message;
      }
    }, SETTLED_MS);
  }

  /** @param {any[]} items what would have been, on each stream */
  answered(items) {
    const sum = (name) => items.reduce((all, one) => all + one[name], 0);
    const said = text("watch.try_judged", { opened: sum("opened"), before: sum("opened_before"), hours: HOURS });
    const opened = items.flatMap((one) => one.found.filter((event) => event.type === "watch.opened").map((event) => ({ ...event, stream: one.stream })));
    const newest = opened.sort((a, b) => b.captured_at.localeCompare(a.captured_at)).slice(0, MOST_LISTED);
    const lines = newest.map((event) => make("li", {}, event.stream, make("time", { datetime: event.captured_at })));
    this.byService.replaceChildren(make("p", {}, said), ...(lines.length ? [make("p", { class: "muted small" }, text("watch.try_new_list")), make("ul", { class: "lines" }, ...lines)] : []));
    localTimes(this.byService);
    for (const item of items) this.shown.find((one) => one.stream === item.stream)?.chart.mark(spansOf(item.found));
  }

  use() {
    for (const name of Object.keys(SLIDERS)) {
      if (!this.moved.has(name)) continue;
      form.elements[name].value = String(this.rule[name]);
      form.elements[name].closest("details")?.setAttribute("open", "");
      form.elements[name].dispatchEvent(new Event("input", { bubbles: true }));
    }
    form.elements.open_at.closest("details")?.setAttribute("open", "");
    form.elements.open_at.focus();
  }

  async load() {
    for (const stream of place.dataset.streams.split(",").slice(0, MOST_STREAMS)) {
      const room = make("div", { class: "chart low" });
      document.getElementById("try-charts").append(make("h3", {}, stream), room);
      const one = { stream, chart: new Series(room, this.axis, stream, { ...this.rule, confirm: pair() }), hops: await recentHops(stream, MINUTES * 60) };
      one.chart.show(scoresOf(one.hops, place.dataset.watch));
      this.shown.push(one);
    }
    const newest = Math.max(0, ...this.shown.map((one) => one.hops.at(-1)?.at_ms ?? 0));
    const oldest = Math.min(...this.shown.map((one) => one.hops[0]?.at_ms ?? Date.now()));
    this.axis.show(Math.min(Math.max((Date.now() - oldest) / 1000 + 5, 60), MINUTES * 60));
    this.axis.advance(newest && Date.now() - newest > 60_000 ? newest + 2000 : Date.now());
    this.judge();
  }

  /** @param {any} item of /v1/answers */
  take(item) {
    const one = this.shown.find((each) => each.stream === item.stream);
    if (!one) return;
    one.hops = [...one.hops, hopOf(item, one.hops.at(-1))].slice(-1200);
    one.chart.show(scoresOf(one.hops, place.dataset.watch));
    this.axis.advance(Date.now());
  }
}

if (place) {
  const trial = new Trial();
  await trial.load();
  listen("v1/answers/stream", {}, (item) => trial.take(item));
}
