// @ts-check
/**
 * The offer curve: both sides' offers as stepped lines, the deal as a dot; hand-made SVG.
 *
 * Colour never alone: buyers are circles on solid lines, sellers squares on dashed ones. The same
 * points stand in the table of messages, which is what keyboards and screen readers use.
 */

import { html, svg } from "lit";
import { rhb, span } from "./format.js";

const WIDTH = 640;
const HEIGHT = 280;
const LEFT = 76;
const RIGHT = 20;
const TOP = 18;
const BOTTOM = 36;

/**
 * @typedef {object} Point
 * @property {string} id
 * @property {string} line which line it is on: a side of a thread
 * @property {"buyer" | "seller"} side
 * @property {number} x
 * @property {bigint} price
 * @property {string} label
 */

/** @param {number} low @param {number} high @param {number} from @param {number} to */
function scale(low, high, from, to) {
  const width = high - low || 1;
  return (/** @type {number} */ value) => from + ((value - low) / width) * (to - from);
}

/** @param {number[]} values */
function ticks(values) {
  const low = Math.min(...values);
  const high = Math.max(...values);
  if (low === high) return [low];
  return [0, 1, 2, 3].map((step) => low + ((high - low) * step) / 3);
}

/** @param {{x: number, y: number}[]} points */
function stepped(points) {
  return points
    .map(({ x, y }, place) =>
      place === 0 ? `M${x.toFixed(1)},${y.toFixed(1)}` : `H${x.toFixed(1)}V${y.toFixed(1)}`,
    )
    .join("");
}

/**
 * @param {Point[]} points in the order they were made
 * @param {{x: number, price: bigint, label: string} | null} deal
 * @param {{axis: "round" | "time", hovered: string | null, onhover: (id: string | null) => void}} options
 */
export function offerCurve(points, deal, { axis, hovered, onhover }) {
  if (points.length === 0) return html`<p class="empty">No offer has been made yet.</p>`;
  const prices = points.map((point) => Number(point.price));
  const xs = [...points.map((point) => point.x), ...(deal ? [deal.x] : [])];
  const pad = (Math.max(...prices) - Math.min(...prices)) * 0.08 || Math.max(...prices) * 0.1 || 1;
  const toX = scale(Math.min(...xs), Math.max(...xs), LEFT + 12, WIDTH - RIGHT - 12);
  const toY = scale(
    Math.max(0, Math.min(...prices) - pad),
    Math.max(...prices) + pad,
    HEIGHT - BOTTOM,
    TOP,
  );
  /** @type {Map<string, Point[]>} */
  const lines = new Map();
  for (const point of points) lines.set(point.line, [...(lines.get(point.line) ?? []), point]);
  const xTicks = axis === "round" ? [...new Set(xs)].slice(0, 12) : ticks(xs);
  return html`
    <svg
      class="curve"
      viewBox="0 0 ${WIDTH} ${HEIGHT}"
      role="img"
      aria-label="Offers by ${axis}: ${points.length} offers${deal ? `, agreed at ${rhb(deal.price)} RHB` : ", no agreement"}. The table of messages has the same data."
    >
      ${ticks(prices).map(
        (price) => svg`
          <line class="grid" x1=${LEFT} x2=${WIDTH - RIGHT} y1=${toY(price)} y2=${toY(price)} />
          <text class="tick" x=${LEFT - 8} y=${toY(price) + 4} text-anchor="end"
            >${rhb(BigInt(Math.round(price / 1000) * 1000))}</text>`,
      )}
      ${xTicks.map(
        (x) => svg`<text class="tick" x=${toX(x)} y=${HEIGHT - 16} text-anchor="middle"
          >${axis === "round" ? x : span(x)}</text>`,
      )}
      <text class="axis" x=${WIDTH - RIGHT} y=${HEIGHT - 3} text-anchor="end">${axis}</text>
      <text class="axis" x="4" y="12">RHB</text>
      ${[...lines.values()].map(
        (line) => svg`<path class="line ${line[0].side}" d=${stepped(
          line.map((point) => ({ x: toX(point.x), y: toY(Number(point.price)) })),
        )} />`,
      )}
      ${points.map((point) => {
        const x = toX(point.x);
        const y = toY(Number(point.price));
        const shape =
          point.side === "buyer"
            ? svg`<circle cx=${x} cy=${y} r="5" />`
            : svg`<rect x=${x - 4.5} y=${y - 4.5} width="9" height="9" />`;
        return svg`<g
          class="point ${point.side} ${point.id === hovered ? "hovered" : ""}"
          @mouseenter=${() => onhover(point.id)}
          @mouseleave=${() => onhover(null)}
        ><title>${point.label}</title>${shape}</g>`;
      })}
      ${
        deal
          ? svg`<g class="deal"><title>${deal.label}</title>
              <circle cx=${toX(deal.x)} cy=${toY(Number(deal.price))} r="10" />
              <text x=${Math.min(toX(deal.x), WIDTH - 120)} y=${Math.max(toY(Number(deal.price)) - 15, 12)}
                text-anchor="middle">deal ${rhb(deal.price)}</text></g>`
          : ""
      }
    </svg>
  `;
}

/**
 * @param {{side: "buyer" | "seller", price: bigint}[]} offers in the order they were made
 * @param {boolean} agreed
 */
export function miniCurve(offers, agreed) {
  if (offers.length === 0) return html`<span class="muted">no offer yet</span>`;
  const numbers = offers.map((offer) => Number(offer.price));
  const toX = scale(0, Math.max(1, numbers.length - 1), 3, 93);
  const toY = scale(Math.min(...numbers), Math.max(...numbers), 21, 4);
  const points = numbers.map((price, place) => ({ x: toX(place), y: toY(price) }));
  const last = points[points.length - 1];
  const lines = ["buyer", "seller"].map((side) => ({
    side,
    points: points.filter((_, place) => offers[place].side === side),
  }));
  return html`<svg class="mini" viewBox="0 0 96 24" aria-hidden="true">
    ${lines.map((line) => svg`<path class="line ${line.side}" d=${stepped(line.points)} />`)}
    ${svg`<circle class=${agreed ? "agreed" : "open"} cx=${last.x} cy=${last.y} r="3" />`}
  </svg>`;
}
