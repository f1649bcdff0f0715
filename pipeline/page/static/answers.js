// The kept answers of a stream, as moments of a chart: read back, then live.

import { read } from "./api.js";

const PAGE = 500;
const MOST = 6000;

/** @typedef {import("./strip.js").Hop} Hop */

/** @param {any} item of /v1/answers @param {Hop | undefined} before @returns {Hop} */
export function hopOf(item, before) {
  const at_ms = Date.parse(item.time);
  const length_ms = (item.record.end_s - item.record.start_s) * 1000;
  return { at_ms, begin_ms: Math.min(Math.max(at_ms - length_ms, before ? before.at_ms : 0), at_ms), record: item.record, seq: item.seq };
}

/** The hops of the last seconds, in order. @param {string} stream @param {number} seconds @returns {Promise<Hop[]>} */
export async function recentHops(stream, seconds) {
  const since = Date.now() - seconds * 1000;
  let found = [];
  let cursor = "";
  do {
    const page = await read(`v1/answers?stream=${stream}&limit=${PAGE}${cursor && `&cursor=${cursor}`}`);
    found = found.concat(page.items);
    cursor = page.next;
  } while (cursor && found.length < MOST && Date.parse(found.at(-1).time) > since);
  /** @type {Hop[]} */
  const hops = [];
  for (const item of found.reverse()) if (Date.parse(item.time) > since) hops.push(hopOf(item, hops.at(-1)));
  return hops;
}

/** The scores of a watch in hops. @param {Hop[]} hops @param {string} watch */
export function scoresOf(hops, watch) {
  const found = [];
  for (const { at_ms, record } of hops) {
    const answer = record.answers[watch];
    if (answer) found.push({ at_ms, score: answer[0], known: answer[1] >= 0.5 });
  }
  return found;
}
