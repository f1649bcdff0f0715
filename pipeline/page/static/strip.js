// The allocation strip: each sampled frame a bar as high as the scale it was shown at, tokens against the grant, events.

import { clockTime, colour, number, text } from "./base.js";
import { Chart } from "./chart.js";

/** @typedef {{at_ms: number, begin_ms: number, record: any}} Hop a hop's record and when it was decided */

export class Strip extends Chart {
  /** @param {HTMLElement} place @param {import("./axis.js").Axis} axis */
  constructor(place, axis) {
    super(place, axis, text("stream.strip"), [
      text("stream.time"), text("stream.frames"), text("stream.scale"), text("chart.spent"), text("chart.granted"), text("stream.skipped"),
    ]);
    /** @type {Hop[]} */
    this.hops = [];
    /** @type {{at_ms: number, type: string, name: string}[]} */
    this.events = [];
  }

  /** @param {Hop[]} hops in order */
  show(hops) {
    this.hops = hops;
    this.items = hops.map(({ at_ms, record }) => {
      const kept = record.frames.filter(([, scale]) => scale > 0);
      const largest = Math.max(0, ...kept.map(([, scale]) => scale));
      const cells = [clockTime(new Date(at_ms)), `${kept.length} / ${record.frames.length}`, `${(100 * largest).toFixed(0)} %`, number(record.spent), number(record.granted), record.skipped || ""];
      const tip = [
        `${text("stream.frames")}: ${kept.length} / ${record.frames.length}`,
        `${text("stream.scale")}: ${(100 * largest).toFixed(0)} %`,
        `${number(record.spent)} / ${number(record.granted)} ${text("units.tokens")}`,
        ...(record.step ? [`${text("stream.step")} ${record.step}`] : []),
        ...(record.skipped ? [`${text("stream.skipped")}: ${record.skipped}`] : []),
      ];
      return { at_ms, tip: tip.join("\n"), cells };
    });
    this.ask();
  }

  /** @param {import("./chart.js").Plot} plot */
  paint(plot) {
    const { g, top, height, x } = plot;
    const bars = height * 0.62;
    const most = this.top();
    g.fillStyle = colour("raised");
    g.fillRect(plot.left, top, plot.width, bars);
    for (const hop of this.hops) {
      if (hop.at_ms < this.axis.begin_ms || hop.begin_ms > this.axis.end_ms) continue;
      const frames = hop.record.frames;
      const each = (hop.at_ms - hop.begin_ms) / Math.max(frames.length, 1);
      frames.forEach(([, scale], i) => {
        const from = x(hop.begin_ms + i * each);
        const wide = Math.max(x(hop.begin_ms + (i + 1) * each) - from - 1, 1);
        const high = Math.min(scale, 1) * bars;
        g.fillStyle = hop.record.skipped ? colour("warn") : colour("accent");
        g.fillRect(from, top + bars - high, wide, high);
        if (!scale) g.fillStyle = colour("muted"), g.fillRect(from, top + bars - 1, wide, 1);
      });
      this.cost(plot, hop, bars, most);
    }
    this.happened(plot, bars);
  }

  /** @param {import("./chart.js").Plot} plot @param {Hop} hop @param {number} bars @param {number} most */
  cost({ g, top, height, x }, hop, bars, most) {
    const low = top + height;
    const room = height - bars - 12;
    const from = x(hop.begin_ms);
    const wide = Math.max(x(hop.at_ms) - from - 1, 1);
    const high = (value) => Math.min(value / most, 1) * room;
    g.fillStyle = colour("muted");
    g.fillRect(from, low - high(hop.record.spent), wide, high(hop.record.spent));
    g.fillStyle = colour("ink");
    g.fillRect(from, low - high(hop.record.granted) - 1, wide + 1, 1.5);
  }

  /** Events as marks between bars and cost. @param {import("./chart.js").Plot} plot @param {number} bars */
  happened({ g, top, x }, bars) {
    for (const event of this.events) {
      g.fillStyle = colour(event.type === "watch.opened" ? "open" : event.type === "watch.cleared" ? "good" : "warn");
      const [at, y] = [x(event.at_ms), top + bars + 6];
      g.beginPath();
      g.moveTo(at, y - 5);
      g.lineTo(at + 5, y);
      g.lineTo(at, y + 5);
      g.lineTo(at - 5, y);
      g.fill();
    }
  }

  top() {
    const shown = this.hops.filter((hop) => hop.at_ms >= this.axis.begin_ms && hop.at_ms <= this.axis.end_ms);
    return Math.max(1, ...shown.map(({ record }) => Math.max(record.spent, Math.min(record.granted, 2 * record.spent || record.granted))));
  }

  /** @param {import("./chart.js").Plot} plot */
  scale({ g, left, top, height, width }) {
    g.fillStyle = colour("muted");
    g.textAlign = "right";
    g.fillText("100 %", left - 5, top + 8);
    g.fillText("0 %", left - 5, top + height * 0.62);
    g.fillText(number(this.top()), left - 5, top + height * 0.62 + 20);
    g.fillText("0 tok", left - 5, top + height);
    if (!this.hops.length) g.textAlign = "center", g.fillText(text("chart.empty"), left + width / 2, top + height / 3);
  }
}
