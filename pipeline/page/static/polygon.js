// What is drawn over a picture: a mask dashed and dark, a zone filled lightly, the part that the MLLM is shown dashed.

const LOOKS = {
  zones: { line: "#57c7bb", fill: "rgb(87 199 187 / 18%)", dash: [] },
  masks: { line: "#ffb4ab", fill: "rgb(0 0 0 / 80%)", dash: [8, 5] },
  crop: { line: "#ffffff", fill: "transparent", dash: [6, 5] },
};

/** @param {CanvasRenderingContext2D} g @param {string} list zones, masks or crop @param {[number, number][]} points from 0 to 1, right and down
 * @param {string} [name] @param {boolean} [closed] */
export function polygon(g, list, points, name = "", closed = true) {
  if (!points.length) return;
  const { line, fill, dash } = LOOKS[list];
  const at = points.map(([x, y]) => [x * g.canvas.width, y * g.canvas.height]);
  g.beginPath();
  at.forEach(([x, y], i) => (i ? g.lineTo(x, y) : g.moveTo(x, y)));
  if (closed) g.closePath();
  g.fillStyle = fill;
  if (closed) g.fill();
  g.lineWidth = Math.max(g.canvas.width / 400, 1.5);
  g.strokeStyle = line;
  g.setLineDash(dash);
  g.stroke();
  g.setLineDash([]);
  if (!name) return;
  const size = Math.max(g.canvas.width / 60, 11);
  g.font = `600 ${size}px system-ui, sans-serif`;
  const [left, top] = [Math.min(...at.map(([x]) => x)), Math.min(...at.map(([, y]) => y))];
  const wide = g.measureText(name).width + size;
  g.fillStyle = "rgb(0 0 0 / 65%)";
  g.fillRect(left, top, wide, size * 1.6);
  g.fillStyle = line;
  g.fillText(name, left + size / 2, top + size * 1.15);
}
