// @ts-check
/** Who sells here, and how sure one can be that they deliver: from settled deals alone. */

import { html, nothing } from "lit";
import { agents } from "./names.js";

const SHOWN = 12;

/**
 * @typedef {object} Success in thousandths
 * @property {number} low
 * @property {number} mean
 * @property {number} high
 * @property {number} deals
 * @property {number} counterparties
 */
/** @typedef {{id: string, name: string, success: Success}} Seller */

/** @param {number} thousandths */
function percent(thousandths) {
  return `${(thousandths / 10).toFixed(1)} %`;
}

/**
 * @param {Success} success
 * @returns the interval as a bar from 0 to 100 %, with the mean on it
 */
function bar({ low, mean, high }) {
  return html`<svg class="interval" viewBox="0 0 1000 12" preserveAspectRatio="none" aria-hidden="true">
    <rect class="all" width="1000" height="12" rx="6"></rect>
    <rect class="likely" x=${low} width=${Math.max(high - low, 1)} height="12"></rect>
    <rect class="mean" x=${Math.min(mean, 990)} width="10" height="12"></rect>
  </svg>`;
}

/** Sellers with the surest first; nothing while nobody is known. */
export function sellersCard() {
  const known = [...agents.value].sort(
    (a, b) => b.success.low - a.success.low || (a.id < b.id ? -1 : 1),
  );
  if (known.length === 0) return nothing;
  return html`<section class="card sellers">
    <h2>Sellers</h2>
    <table>
      <thead>
        <tr>
          <th scope="col">Agent</th><th scope="col">Success</th>
          <th scope="col">Deals</th><th scope="col">Buyers</th>
        </tr>
      </thead>
      <tbody>
        ${known.slice(0, SHOWN).map(
          ({ id, name, success }) => html`<tr data-agent=${id}>
            <td>${name}</td>
            <td>
              ${bar(success)}
              <span class="rate">${percent(success.mean)}</span>
              <small>${percent(success.low)} to ${percent(success.high)}</small>
            </td>
            <td class="number">${success.deals}</td>
            <td class="number">${success.counterparties}</td>
          </tr>`,
        )}
      </tbody>
    </table>
    <p class="note">
      From settled deals alone, weighed by fees paid and by how diverse the buyers are. With 90 % the
      true rate lies in the dark part. <code>rahba reputation</code> computes the same from the log.
    </p>
  </section>`;
}
