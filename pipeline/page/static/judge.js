// When a watch would be open on known scores. The service judges; this shows what other thresholds would do.

/** @param {{at_ms: number, score: number, known: boolean}[]} scores in order
 * @param {{open_at: number, clear_at: number, confirm?: number[]}} rule
 * @returns {[number, number | null][]} from when to when it is open; null: still */
export function judged(scores, { open_at, clear_at, confirm = [1, 1] }) {
  const [k, n] = confirm;
  /** @type {[number, number | null][]} */
  const spans = [];
  let recent = [];
  let open = false;
  for (const { at_ms, score, known } of scores) {
    if (!known) continue;
    recent = [...recent, score].slice(-n);
    const agrees = (one) => (open ? one <= clear_at : one >= open_at);
    if (recent.filter(agrees).length < k || !agrees(score)) continue;
    open = !open;
    recent = [];
    if (open) spans.push([at_ms, null]);
    else spans[spans.length - 1][1] = at_ms;
  }
  return spans;
}
