// Scores over time with the thresholds at which a watch opens and clears, and when it was open.

import { clockTime, colour, text } from "./base.js";
import { Chart } from "./chart.js";
import { judged } from "./judge.js";

/** @typedef {{at_ms: number, score: number, known: boolean}} Score */

export class Series extends Chart {
  /** @param {HTMLElement} place @param {import("./axis.js").Axis} axis @param {string} name @param {{open_at: number, clear_at: number, confirm?: number[]}} rule */
  constructor(place, axis, name, rule) {
    super(place, axis, `${text("stream.scores")}: ${name}`, [text("stream.time"), text("chart.score")]);
    this.rule = rule;
    /** @type {Score[]} */
    this.scores = [];
    this.spans = [];
  }

  /** @param {Score[]} scores in order */
  show(scores) {
    this.scores = scores;
    this.items = scores.map(({ at_ms, score, known }) => {
      const said = known ? score.toFixed(2) : text("states.unknown");
      return { at_ms, tip: `${text("chart.score")} ${said}`, cells: [clockTime(new Date(at_ms)), said] };
    });
    this.spans = judged(scores, this.rule);
    this.ask();
  }

  /** Show these times as open, which somebody else has judged. @param {[number, number | null][]} spans */
  mark(spans) {
    this.spans = spans;
    this.ask();
  }

  /** @param {{open_at: number, clear_at: number, confirm?: number[]}} rule */
  tune(rule) {
    this.rule = rule;
    this.show(this.scores);
  }

  /** @param {import("./chart.js").Plot} plot */
  paint({ g, left, top, width, height, x }) {
    const y = (score) => top + (1 - score) * height;
    g.globalAlpha = 0.16;
    g.fillStyle = colour("open");
    for (const [from, to] of this.spans) g.fillRect(x(from), top, Math.max(x(to ?? this.axis.end_ms) - x(from), 2), height);
    g.globalAlpha = 1;
    for (const [name, at] of [["open", this.rule.open_at], ["good", this.rule.clear_at]]) {
      g.strokeStyle = colour(name);
      g.setLineDash([5, 4]);
      g.beginPath();
      g.moveTo(left, y(at));
      g.lineTo(left + width, y(at));
      g.stroke();
    }
    g.setLineDash([]);
    g.strokeStyle = g.fillStyle = colour("accent");
    g.lineWidth = 1.6;
    g.beginPath();
    let drawing = false;
    for (const { at_ms, score, known } of this.scores) {
      if (known) drawing ? g.lineTo(x(at_ms), y(score)) : g.moveTo(x(at_ms), y(score));
      drawing = known;
    }
    g.stroke();
    g.lineWidth = 1;
    for (const { at_ms, score, known } of this.scores) {
      g.beginPath();
      g.arc(x(at_ms), known ? y(score) : top + height - 3, known ? 1.8 : 2.5, 0, 7);
      known ? g.fill() : g.stroke();
    }
  }

  /** @param {import("./chart.js").Plot} plot */
  scale({ g, left, top, height, width }) {
    g.fillStyle = colour("muted");
    g.textAlign = "right";
    for (const at of [1, this.rule.open_at, this.rule.clear_at, 0]) g.fillText(at.toFixed(at % 1 ? 2 : 0), left - 5, top + (1 - at) * height + 4);
    if (!this.scores.length) g.textAlign = "center", g.fillText(text("chart.empty"), left + width / 2, top + height / 2);
  }
}
