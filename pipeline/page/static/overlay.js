// Zones and masks of a stream, and the part of it that the MLLM is shown, over its live picture.

import { polygon } from "./polygon.js";

export class Overlay {
  /** @param {HTMLCanvasElement} canvas over the picture @param {HTMLCanvasElement} picture @param {DOMStringMap} areas JSON: corners by name */
  constructor(canvas, picture, areas) {
    this.canvas = canvas;
    this.picture = picture;
    this.areas = ["masks", "zones"].map((list) => [list, Object.entries(JSON.parse(areas[list] || "{}"))]);
    /** @type {number[] | undefined} left, top, right and bottom edge, from 0 to 1 */
    this.crop = undefined;
  }

  /** After each picture: it may have another size. Without one there is nothing to draw over. */
  paint() {
    const { canvas, picture } = this;
    if (!picture.parentElement.classList.contains("has-picture")) return;
    if (canvas.width !== picture.width || canvas.height !== picture.height) [canvas.width, canvas.height] = [picture.width, picture.height];
    const g = canvas.getContext("2d");
    g.clearRect(0, 0, canvas.width, canvas.height);
    for (const [list, all] of this.areas) for (const [name, points] of all) polygon(g, list, points, name);
    if (!this.crop) return;
    const [left, top, right, bottom] = this.crop;
    polygon(g, "crop", [[left, top], [right, top], [right, bottom], [left, bottom]]);
  }
}
