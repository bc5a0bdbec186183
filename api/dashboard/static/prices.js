// @ts-check
/** What skills are expected to cost, as the gateway forecasts it from settled deals. */

import { signal } from "@preact/signals-core";
import { html, nothing } from "lit";
import { rhb } from "./format.js";

/**
 * @typedef {object} Step
 * @property {number} start
 * @property {string} value_fals
 * @property {string} low_fals
 * @property {string} high_fals
 * @property {string} naive_fals
 */
/** @typedef {{method: string, width_ms: number, steps: Step[]}} Forecast */

const MOST_SKILLS = 12;

/** @type {import("@preact/signals-core").Signal<Map<string, Forecast>>} */
export const forecasts = signal(new Map());

/**
 * Asks for the forecasts of some skills; what cannot be had stays as it was.
 * @param {string[]} skills
 */
export async function refreshForecasts(skills) {
  const fresh = new Map(forecasts.value);
  await Promise.all(
    skills.slice(0, MOST_SKILLS).map(async (skill) => {
      const answer = await fetch(`/v1/prices/${encodeURIComponent(skill)}?buckets=0`).catch(() => null);
      const found = answer?.ok ? (await answer.json()).forecast : null;
      if (found) fresh.set(skill, found);
    }),
  );
  forecasts.value = fresh;
}

/**
 * A row for the table of prices: what is expected of a skill, with the naive forecast beside it.
 * @param {string} skill
 */
export function expected(skill) {
  const step = forecasts.value.get(skill)?.steps[0];
  if (!step) return nothing;
  return html`<tr>
    <td colspan="4">
      <small
        >expected now: ${rhb(step.value_fals)} (${rhb(step.low_fals)} to ${rhb(step.high_fals)}; as
        last time: ${rhb(step.naive_fals)})</small
      >
    </td>
  </tr>`;
}
