// @ts-check
/** Writing amounts, names and times for people. Amounts are BigInt fals; 1 RHB = 10^9 fals. */

const FALS_PER_RHB = 1_000_000_000n;

/**
 * @param {bigint | string} fals
 * @returns {string} the amount in RHB without trailing zeros
 */
export function rhb(fals) {
  const value = BigInt(fals);
  const size = value < 0n ? -value : value;
  const part = (size % FALS_PER_RHB).toString().padStart(9, "0").replace(/0+$/, "");
  return `${value < 0n ? "−" : ""}${size / FALS_PER_RHB}${part ? "." + part : ""}`;
}

/**
 * @param {string} did
 * @returns {string} the last eight characters
 */
export function short(did) {
  return did.slice(-8);
}

/**
 * @param {number} ms since the epoch
 * @returns {string} local time of day with seconds
 */
export function clock(ms) {
  return new Date(ms).toLocaleTimeString([], { hour12: false });
}

/**
 * @param {number} ms
 * @returns {string} a span of time, such as "240 ms" or "1.3 s"
 */
export function span(ms) {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  return ms < 60_000 ? `${(ms / 1000).toFixed(1)} s` : `${Math.round(ms / 60_000)} min`;
}
