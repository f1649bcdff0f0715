// Server-sent events while somebody looks: closed when the tab is hidden, back with what was missed.

import { link } from "./base.js";
import { read, report } from "./api.js";

const RETRY_MS = 2000;

/** Listen until the page goes. @param {string} path of the stream of events, below the root @param {Record<string, string>} query
 * @param {(item: any) => void} take called with each item @param {string | number} [after] the place behind which to begin */
export function listen(path, query, take, after = "") {
  let source = null;
  let last = String(after);
  let timer = 0;

  function open() {
    clearTimeout(timer);
    if (source || document.hidden) return;
    const wanted = new URLSearchParams(Object.entries({ ...query, after: last }).filter(([, value]) => value !== ""));
    source = new EventSource(link(`${path}?${wanted}`));
    source.onopen = () => report(false);
    source.onmessage = (message) => {
      last = message.lastEventId;
      take(JSON.parse(message.data));
    };
    source.onerror = again;
    for (const kind of ["end", "lagging"]) source.addEventListener(kind, again);
  }

  function again() {
    close();
    timer = setTimeout(async () => {
      await read("v1/session").catch(() => {}); // says whether the service is away, or the session is over
      open();
    }, RETRY_MS);
  }

  function close() {
    source?.close();
    source = null;
  }

  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  addEventListener("pagehide", close);
  addEventListener("pageshow", open);
  open();
}
