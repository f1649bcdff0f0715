// Zones and masks, drawn on the stream's picture by mouse, touch or keys. What is saved is the JSON of the text fields.

import { colour, make, text } from "./base.js";
import { draw, tiles } from "./api.js";
import { polygon } from "./polygon.js";

const NEAR = 0.02;
const form = document.getElementById("areas");
const canvas = document.getElementById("draw");
const picture = document.createElement("canvas");
document.createElement("div").append(picture);

/** @typedef {{name: string, points: [number, number][]}} Area corners from 0 to 1, right and down */
/** As they are edited; as JSON they are corners by name. @type {Record<string, Area[]>} */
const areas = {};
const fields = Object.fromEntries([...(form?.querySelectorAll("textarea") ?? [])].map((field) => [field.name, field]));
/** What is being drawn. @type {{list: string, points: [number, number][]} | null} */
let drawing = null;
let cross = [0.5, 0.5];
/** @type {[number, number] | null} */
let dragged = null;

function readFields() {
  for (const [list, field] of Object.entries(fields)) {
    try {
      areas[list] = Object.entries(JSON.parse(field.value || "{}")).map(([name, points]) => ({ name, points }));
    } catch {
      areas[list] = []; // the server says what is wrong with it
    }
  }
}

/** @param {boolean} typed whether a text field was what changed */
function changed(typed = false) {
  if (!typed) for (const [list, field] of Object.entries(fields)) field.value = JSON.stringify(Object.fromEntries(areas[list].map((area) => [area.name, area.points])));
  form.dispatchEvent(new Event("input"));
  lists();
  paint();
}

function lists() {
  for (const place of form.querySelectorAll("[data-list]")) {
    const list = place.dataset.list;
    place.replaceChildren(...areas[list].map((area, i) => {
      const name = make("input", { value: area.name ?? "", "aria-label": text("areas.name"), onchange: () => ((area.name = name.value), changed()) });
      const remove = make("button", { type: "button", class: "danger", onclick: () => (areas[list].splice(i, 1), changed()) }, text("areas.remove"));
      return make("li", {}, name, make("span", { class: "muted small" }, text("areas.corners", { count: area.points.length })), remove);
    }));
  }
}

function paint() {
  const g = canvas.getContext("2d");
  g.fillStyle = colour("picture");
  g.fillRect(0, 0, canvas.width, canvas.height);
  if (picture.dataset.there) {
    if (canvas.width !== picture.width || canvas.height !== picture.height) [canvas.width, canvas.height] = [picture.width, picture.height];
    g.drawImage(picture, 0, 0);
  }
  for (const [list, all] of Object.entries(areas)) for (const area of all) shape(g, list, area.points, true, area.name);
  if (drawing) shape(g, drawing.list, [...drawing.points, cross], false, "");
  if (drawing || document.activeElement === canvas) mark(g);
}

/** @param {CanvasRenderingContext2D} g @param {string} list @param {[number, number][]} points @param {boolean} closed @param {string} name */
function shape(g, list, points, closed, name) {
  polygon(g, list, points, name, closed);
  const half = Math.max(canvas.width / 200, 2.5);
  g.fillStyle = "#ffffff";
  for (const [x, y] of points) g.fillRect(x * canvas.width - half, y * canvas.height - half, 2 * half, 2 * half);
}

/** @param {CanvasRenderingContext2D} g */
function mark(g) {
  const [x, y] = [cross[0] * canvas.width, cross[1] * canvas.height];
  g.strokeStyle = "#ffffff";
  g.lineWidth = 1.5;
  g.strokeRect(x - 9, y - 0.5, 18, 1);
  g.strokeRect(x - 0.5, y - 9, 1, 18);
}

/** @param {string} list */
function begin(list) {
  drawing = { list, points: [] };
  canvas.focus();
  paint();
}

function corner() {
  if (!drawing) return;
  const [x, y] = cross.map((v) => Math.round(v * 1e4) / 1e4);
  const last = drawing.points.at(-1);
  if (!last || Math.hypot(last[0] - x, last[1] - y) > NEAR / 4) drawing.points.push([x, y]);
  paint();
}

function close() {
  if (!drawing || drawing.points.length < 3) return;
  const { list, points } = drawing;
  drawing = null;
  const names = new Set(areas[list].map((area) => area.name));
  let n = areas[list].length + 1;
  while (names.has(`${list.slice(0, -1)}-${n}`)) n += 1;
  areas[list].push({ name: `${list.slice(0, -1)}-${n}`, points });
  changed();
}

function undo() {
  if (drawing?.points.length) drawing.points.pop();
  else drawing = null;
  paint();
}

/** @param {PointerEvent} event */
function point(event) {
  const box = canvas.getBoundingClientRect();
  cross = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height].map((v) => Math.min(Math.max(v, 0), 1));
}

canvas?.addEventListener("pointerdown", (event) => {
  point(event);
  if (drawing) return corner();
  const near = ([x, y]) => Math.hypot(x - cross[0], y - cross[1]) < NEAR;
  dragged = Object.values(areas).flat().flatMap((area) => area.points).find(near) ?? null;
  if (dragged) canvas.setPointerCapture(event.pointerId);
});
canvas?.addEventListener("pointermove", (event) => {
  point(event);
  if (dragged) [dragged[0], dragged[1]] = cross.map((v) => Math.round(v * 1e4) / 1e4);
  if (dragged || drawing) paint();
});
canvas?.addEventListener("pointerup", () => dragged && ((dragged = null), changed()));
canvas?.addEventListener("dblclick", close);
canvas?.addEventListener("keydown", (event) => {
  const step = event.shiftKey ? 0.05 : 0.01;
  const move = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key];
  if (move) cross = cross.map((v, i) => Math.min(Math.max(v + move[i], 0), 1));
  else if (event.key === " ") corner();
  else if (event.key === "Enter") close();
  else if (event.key === "Escape" || event.key === "Backspace") undo();
  else return;
  event.preventDefault();
  paint();
});

async function refresh() {
  const { pictures } = await tiles(new Map([[form.dataset.stream, 0]]), 960);
  const newest = pictures.get(form.dataset.stream);
  if (!newest) return setTimeout(refresh, 1500);
  await draw(picture, newest);
  picture.dataset.there = "yes";
  paint();
}

if (form) {
  readFields();
  const actions = document.getElementById("draw-actions");
  for (const list of Object.keys(fields)) {
    actions.append(make("button", { type: "button", onclick: () => begin(list) }, text(`areas.new_${list.slice(0, -1)}`)));
    fields[list].addEventListener("change", () => (readFields(), changed(true)));
  }
  actions.append(make("button", { type: "button", onclick: close }, text("areas.done")), make("button", { type: "button", onclick: undo }, text("areas.undo")));
  lists();
  paint();
  refresh().catch(() => {});
}
