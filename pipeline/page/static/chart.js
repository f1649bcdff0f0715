// A canvas on a time axis: sizes, ticks, the mark under the pointer, keys, and a table for who sees no canvas.

import { clockTime, colour, make, text } from "./base.js";
import { ticks } from "./axis.js";

const LEFT = 44;
const BELOW = 18;

/** @typedef {{at_ms: number, tip: string, cells: string[]}} Item one moment of a chart: what is said of it */
/** @typedef {{g: CanvasRenderingContext2D, left: number, top: number, width: number, height: number, x: (ms: number) => number}} Plot */

export class Chart {
  /** @param {HTMLElement} place @param {import("./axis.js").Axis} axis @param {string} name @param {string[]} columns of the table */
  constructor(place, axis, name, columns) {
    this.axis = axis;
    this.columns = columns;
    /** @type {Item[]} */
    this.items = [];
    this.canvas = make("canvas", { tabindex: 0, role: "img", "aria-label": `${name}. ${text("chart.keys")}` });
    this.tip = make("div", { class: "tip", hidden: true, "aria-live": "polite" });
    this.body = make("tbody");
    place.append(this.canvas, this.tip);
    const head = make("tr", {}, ...columns.map((one) => make("th", { scope: "col" }, one)));
    const table = make("table", {}, make("thead", {}, head), this.body);
    this.table = make("details", { ontoggle: () => this.fill() }, make("summary", {}, text("stream.table")), make("div", { tabindex: 0 }, table));
    place.after(this.table);
    this.listen();
  }

  listen() {
    let asked = false;
    this.ask = () => {
      if (asked) return;
      asked = true;
      requestAnimationFrame(() => ((asked = false), this.render()));
    };
    this.axis.addEventListener("change", this.ask);
    addEventListener("themechange", this.ask);
    new ResizeObserver(this.ask).observe(this.canvas);
    const at = (event) => this.axis.begin_ms + ((event.offsetX - LEFT) / (this.canvas.clientWidth - LEFT - 8)) * this.axis.length_ms;
    this.canvas.addEventListener("pointermove", (event) => this.axis.mark(at(event)));
    this.canvas.addEventListener("pointerleave", () => this.axis.mark(null));
    this.canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.shiftKey) return;
      event.preventDefault();
      this.axis.zoom(event.deltaY > 0 ? 1.25 : 0.8, at(event));
    }, { passive: false });
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    this.canvas.addEventListener("blur", () => this.axis.mark(null));
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const here = this.near(this.axis.mark_ms ?? this.axis.end_ms);
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      const next = this.items[Math.min(Math.max(here + (event.key === "ArrowLeft" ? -1 : 1), 0), this.items.length - 1)];
      if (next) this.axis.mark(next.at_ms);
    } else if (event.key === "+" || event.key === "=") this.axis.zoom(0.7);
    else if (event.key === "-") this.axis.zoom(1.4);
    else if (event.key === "Home") this.axis.zoom(1e9);
    else return;
    event.preventDefault();
  }

  /** The place of the item nearest to a time. @param {number} at_ms */
  near(at_ms) {
    let best = -1;
    let least = Infinity;
    this.items.forEach((item, i) => {
      const far = Math.abs(item.at_ms - at_ms);
      if (far < least) [best, least] = [i, far];
    });
    return best;
  }

  render() {
    const { clientWidth: wide, clientHeight: high } = this.canvas;
    if (!wide) return;
    const dense = devicePixelRatio || 1;
    if (this.canvas.width !== Math.round(wide * dense)) this.canvas.width = Math.round(wide * dense);
    if (this.canvas.height !== Math.round(high * dense)) this.canvas.height = Math.round(high * dense);
    const g = this.canvas.getContext("2d");
    g.setTransform(dense, 0, 0, dense, 0, 0);
    g.clearRect(0, 0, wide, high);
    g.font = "11px system-ui, sans-serif";
    const plot = { g, left: LEFT, top: 6, width: wide - LEFT - 8, height: high - BELOW - 6, x: (ms) => this.axis.x(ms, LEFT, wide - LEFT - 8) };
    this.ticks(plot);
    g.save();
    g.beginPath();
    g.rect(plot.left, 0, plot.width, high);
    g.clip();
    this.paint(plot);
    this.point(plot);
    g.restore();
    this.scale(plot);
    if (this.table.open) this.fill();
  }

  /** @param {Plot} plot */
  ticks({ g, left, top, width, height, x }) {
    g.strokeStyle = colour("line");
    g.fillStyle = colour("muted");
    g.textAlign = "center";
    for (const at of ticks(this.axis, width)) {
      g.beginPath();
      g.moveTo(x(at), top);
      g.lineTo(x(at), top + height);
      g.stroke();
      if (x(at) > left + 24 && x(at) < left + width - 24) g.fillText(clockTime(new Date(at)), x(at), top + height + 13);
    }
  }

  /** The mark, and what is said of what is under it. @param {Plot} plot */
  point({ g, left, top, width, height, x }) {
    const item = this.axis.mark_ms == null ? null : this.items[this.near(this.axis.mark_ms)];
    this.tip.hidden = !item || Math.abs(item.at_ms - this.axis.mark_ms) > this.axis.length_ms / 20;
    if (this.tip.hidden) return;
    g.strokeStyle = colour("accent");
    g.beginPath();
    g.moveTo(x(item.at_ms), top);
    g.lineTo(x(item.at_ms), top + height);
    g.stroke();
    this.tip.textContent = `${clockTime(new Date(item.at_ms))}\n${item.tip}`;
    const right = x(item.at_ms) > left + width / 2;
    this.tip.style.left = right ? "auto" : `${x(item.at_ms) + 10}px`;
    this.tip.style.right = right ? `${left + width + 8 - x(item.at_ms) + 10}px` : "auto";
  }

  fill() {
    if (!this.table.open) return;
    const rows = this.items.slice(-200).reverse();
    this.body.replaceChildren(...rows.map((item) => make("tr", {}, ...item.cells.map((cell) => make("td", {}, cell)))));
  }

  /** @param {Plot} _plot what a kind of chart draws */
  paint(_plot) {}

  /** @param {Plot} _plot the numbers beside it */
  scale(_plot) {}
}
