// Asking the API, and saying so when it does not answer. Pictures of many streams come as one form.

import { link, make, text } from "./base.js";

const place = document.getElementById("connection");
let away = false;

/** What is wrong with an answer, in the API's words. */
export class Problem extends Error {
  /** @param {number} status @param {{detail?: string, errors?: {field: string, detail: string}[]}} body */
  constructor(status, body) {
    super(body.detail || `status ${status}`);
    this.status = status;
    this.errors = body.errors || [];
  }
}

/** @param {boolean} lost whether the service is away */
export function report(lost) {
  if (lost === away) return;
  away = lost;
  place.hidden = false;
  place.className = lost ? "" : "back";
  place.textContent = text(lost ? "connection.lost" : "connection.back");
  if (!lost) setTimeout(() => (place.hidden = !away), 4000);
}

function sessionEnded() {
  const back = location.pathname + location.search;
  const href = link(`login?next=${encodeURIComponent(back)}`);
  place.hidden = false;
  place.className = "";
  place.replaceChildren(text("connection.session"), " ", make("a", { href }, text("connection.log_in")));
}

/** @param {string} path below the root @param {RequestInit} [options] @returns {Promise<Response>} raises Problem */
export async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(link(path), { credentials: "same-origin", ...options });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    report(true);
    throw error;
  }
  const proxied = [502, 504].includes(response.status) && !response.headers.get("content-type")?.includes("json");
  report(proxied);
  if (response.status === 401) sessionEnded();
  if (!response.ok) throw new Problem(response.status, await response.json().catch(() => ({})));
  return response;
}

/** @param {string} path */
export const read = async (path) => (await ask(path)).json();

/** @param {string} method @param {string} path @param {unknown} body */
export const send = (method, path, body) =>
  ask(path, { method, body: JSON.stringify(body), headers: { "Content-Type": "application/json" } });

/** How streams stand, and their new pictures. @param {Map<string, number>} known number of the last picture by stream
 * @param {number} width @param {AbortSignal} [signal] @returns {Promise<{status: Record<string, any>, pictures: Map<string, File>}>} */
export async function tiles(known, width, signal) {
  const streams = [...known].map(([slug, seen]) => `${slug}:${seen}`).join(",");
  const form = await (await ask(`v1/tiles?width=${width}&streams=${streams}`, { signal })).formData();
  const pictures = new Map();
  for (const file of form.getAll("tile")) {
    const [slug, seen] = file.name.split(".");
    known.set(slug, Number(seen));
    pictures.set(slug, file);
  }
  return { status: JSON.parse(form.get("status")), pictures };
}

/** Draw a picture into a canvas, as large as it is. @param {HTMLCanvasElement} canvas @param {Blob} picture */
export async function draw(canvas, picture) {
  const image = await createImageBitmap(picture);
  if (canvas.width !== image.width || canvas.height !== image.height) [canvas.width, canvas.height] = [image.width, image.height];
  canvas.getContext("2d").drawImage(image, 0, 0);
  image.close();
  canvas.parentElement.classList.add("has-picture");
}
