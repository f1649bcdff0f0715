// Zones and masks of a stream, over its live picture.

import { polygon } from "./polygon.js";

export class Overlay {
  /** @param {HTMLCanvasElement} canvas over the picture @param {HTMLCanvasElement} picture @param {DOMStringMap} areas JSON: corners by name */
  constructor(canvas, picture, areas) {
    this.canvas = canvas;
    this.picture = picture;
    this.areas = ["masks", "zones"].map((list) => [list, Object.entries(JSON.parse(areas[list] || "{}"))]);
  }

  /** After each picture: it may have another size. */
  paint() {
    const { canvas, picture } = this;
    if (canvas.width !== picture.width || canvas.height !== picture.height) [canvas.width, canvas.height] = [picture.width, picture.height];
    const g = canvas.getContext("2d");
    g.clearRect(0, 0, canvas.width, canvas.height);
    for (const [list, all] of this.areas) for (const [name, points] of all) polygon(g, list, points, name);
  }
}
