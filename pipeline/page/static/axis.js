// One time axis for several charts: the same range, the same mark, zoom by wheel or keys.

const LEAST_S = 10;

/** A range of time in ms since 1970 that charts share; `follow` keeps its end at now. */
export class Axis extends EventTarget {
  /** @param {number} seconds shown */
  constructor(seconds) {
    super();
    this.whole_ms = seconds * 1000;
    this.length_ms = this.whole_ms;
    this.end_ms = Date.now();
    this.follow = true;
    /** @type {number | null} */
    this.mark_ms = null;
  }

  get begin_ms() {
    return this.end_ms - this.length_ms;
  }

  /** @param {number} seconds */
  show(seconds) {
    this.whole_ms = this.length_ms = seconds * 1000;
    this.follow = true;
    this.changed();
  }

  /** @param {number} now_ms */
  advance(now_ms) {
    if (!this.follow) return;
    this.end_ms = now_ms;
    this.changed();
  }

  /** @param {number} factor @param {number} around_ms stays where it is */
  zoom(factor, around_ms = this.mark_ms ?? this.end_ms) {
    const length = Math.min(Math.max(this.length_ms * factor, LEAST_S * 1000), this.whole_ms);
    const share = (this.end_ms - around_ms) / this.length_ms;
    this.follow = length === this.whole_ms || (this.follow && share < 0.02);
    this.end_ms = around_ms + share * length;
    this.length_ms = length;
    this.changed();
  }

  /** @param {number | null} at_ms */
  mark(at_ms) {
    this.mark_ms = at_ms;
    this.changed();
  }

  changed() {
    this.dispatchEvent(new Event("change"));
  }

  /** @param {number} at_ms @param {number} left @param {number} width in px */
  x(at_ms, left, width) {
    return left + ((at_ms - this.begin_ms) / this.length_ms) * width;
  }
}

/** Round times for ticks: at most one in 90 px. @param {Axis} axis @param {number} width */
export function ticks(axis, width) {
  const most = Math.max(width / 90, 2);
  const step = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600].find((s) => axis.length_ms / 1000 / s <= most) || 1800;
  const found = [];
  for (let at = Math.ceil(axis.begin_ms / 1000 / step) * step; at * 1000 <= axis.end_ms; at += step) found.push(at * 1000);
  return found;
}
