// @ts-check
/** The page of one negotiation: what was offered, by whom, how it ended, and the proof of it. */

import { signal } from "@preact/signals-core";
import { html, nothing } from "lit";
import { offerCurve } from "./curve.js";
import { listen } from "./feed.js";
import { clock, rhb, short, span } from "./format.js";
import { nameOf } from "./names.js";
import { SignalElement } from "./signals.js";
import { RAIL, saying, stepsOf } from "./thread.js";

/** @typedef {import("./thread.js").Step} Step */

const axis = signal(/** @type {"round" | "time"} */ ("round"));
const hovered = signal(/** @type {string | null} */ (null));

/** @param {Step} step @param {number} opened */
function pointOf(step, opened) {
  return {
    id: step.id,
    line: `${step.thread}:${step.side}`,
    side: step.side,
    x: axis.value === "round" ? step.round : step.at - opened,
    price: step.price ?? 0n,
    label: `${nameOf(step.from)}, round ${step.round}: ${rhb(step.price ?? 0n)} RHB`,
  };
}

/** @param {boolean | null} valid */
function badge(valid) {
  if (valid === null) return html`<span class="badge unchecked">not checked</span>`;
  return valid
    ? html`<span class="badge good" title="Ed25519 signature verified in this browser">✓ signed</span>`
    : html`<span class="badge bad">✗ bad signature</span>`;
}

class Negotiation extends SignalElement {
  static properties = { group: {}, talk: { state: true }, steps: { state: true }, problem: { state: true } };
  /** @type {(() => void) | undefined} */
  #deaf;
  #again = 0;

  constructor() {
    super();
    this.group = "";
    /** @type {any} */
    this.talk = null;
    /** @type {Step[]} */
    this.steps = [];
    this.problem = "";
  }

  connectedCallback() {
    super.connectedCallback();
    this.#load();
    this.#deaf = listen(({ data }) => {
      const mine = data.group === this.group || this.talk?.threads.some((/** @type {any} */ t) => t.thread === data.thread);
      if (!mine) return;
      clearTimeout(this.#again);
      this.#again = setTimeout(() => this.#load(), 150);
    });
  }

  disconnectedCallback() {
    super.disconnectedCallback();
    this.#deaf?.();
    clearTimeout(this.#again);
  }

  async #load() {
    try {
      const answer = await fetch(`/v1/negotiations/${this.group}?raw=1`);
      const body = await answer.json();
      if (!answer.ok) throw new Error(body.detail ?? body.title);
      const threads = body.threads.map((/** @type {any} */ thread) => ({ ...thread.facts, ...thread }));
      const steps = (await Promise.all(threads.map(stepsOf))).flat();
      steps.sort((a, b) => a.at - b.at);
      this.talk = { ...body, threads };
      this.steps = steps;
      this.problem = "";
    } catch (error) {
      this.problem = error instanceof Error ? error.message : String(error);
    }
  }

  #winner() {
    const { agreement, threads } = this.talk;
    return agreement && threads.find((/** @type {any} */ thread) => thread.agreement === agreement);
  }

  #sentence() {
    const { skill, buyer, mode, threads } = this.talk;
    const won = this.#winner();
    const who = nameOf(buyer);
    if (!won) {
      const last = this.steps.filter((step) => step.price !== null).slice(-2);
      const gap =
        last.length === 2 && last[0].side !== last[1].side
          ? ` The last gap was ${rhb((last[0].price ?? 0n) - (last[1].price ?? 0n)).replace("−", "")} RHB.`
          : "";
      const ending = this.steps.findLast((step) => ["reject", "refuse", "failure"].includes(step.type));
      return ending
        ? `${nameOf(ending.from)} ${saying(ending.type)}: no deal on ${skill}${ending.note ? ` (${ending.note})` : ""}.${gap}`
        : `${who} talks with ${threads.length} about ${skill} (${mode}).${gap}`;
    }
    const price = `${rhb(won.paid ?? won.agreed)} RHB`;
    /** @type {Record<string, string>} */
    const end = {
      settled: `paid ${price}; the payment is in the ledger`,
      failed: "the job failed and the money went back",
      expired: "the deadline passed and the money goes back",
    };
    return `${who} bought ${skill} from ${nameOf(won.seller)} (${mode}): ${end[won.state] ?? `agreed on ${price}, ${won.state}`}.`;
  }

  #rail() {
    const states = this.talk.threads.map((/** @type {any} */ thread) => thread.state);
    const best = this.#winner()?.state ?? states[0] ?? "open";
    const reached = RAIL.indexOf(best);
    return html`<ol class="rail" aria-label="How far it came">
      ${RAIL.map((name, place) => html`<li class=${place <= reached ? "reached" : ""}
        aria-current=${name === best ? "step" : nothing}>${name}</li>`)}
      ${reached < 0 ? html`<li class="ending" aria-current="step">${best}</li>` : nothing}
    </ol>`;
  }

  #curve() {
    const offers = this.steps.filter((step) => step.price !== null);
    const opened = this.steps[0]?.at ?? 0;
    const won = this.#winner();
    const accept = this.steps.find((step) => step.type === "accept" && step.thread === won?.thread);
    const last = offers.filter((step) => step.thread === won?.thread).at(-1);
    const deal =
      won && accept
        ? {
            x: axis.value === "round" ? (last?.round ?? 1) : accept.at - opened,
            price: BigInt(won.agreed),
            label: `agreed on ${rhb(won.agreed)} RHB`,
          }
        : null;
    const points = offers.map((step) => pointOf(step, opened));
    if (points.length === 0 && deal && won) {
      points.push({ id: "posted", line: "posted", side: "seller", x: deal.x, price: deal.price, label: "posted price" });
    }
    return html`<section class="card">
      <div class="row">
        <h2>Offers</h2>
        <div role="group" aria-label="Axis">
          ${/** @type {("round" | "time")[]} */ (["round", "time"]).map(
            (name) => html`<button aria-pressed=${axis.value === name ? "true" : "false"}
              @click=${() => (axis.value = name)}>by ${name}</button>`,
          )}
        </div>
      </div>
      ${offerCurve(points, deal, {
        axis: axis.value,
        hovered: hovered.value,
        onhover: (id) => (hovered.value = id),
      })}
      <p class="legend"><span class="buyer">● buyer</span> <span class="seller">■ seller</span> <span class="agreed">◯ deal</span></p>
    </section>`;
  }

  #messages() {
    let before = this.steps[0]?.at ?? 0;
    return html`<section class="card">
      <h2>Messages</h2>
      <div class="scroll" tabindex="0" role="region" aria-label="Messages">
        <table>
          <thead><tr><th scope="col">Time</th><th scope="col">Who</th><th scope="col">Says</th><th scope="col">RHB</th><th scope="col">Signature</th></tr></thead>
          <tbody>
            ${this.steps.map((step) => {
              const gap = step.at - before;
              before = step.at;
              return html`<tr class=${step.id === hovered.value ? "hovered" : ""}
                @mouseenter=${() => (hovered.value = step.id)} @mouseleave=${() => (hovered.value = null)}>
                <td><time>${clock(step.at)}</time> <small>+${span(gap)}</small></td>
                <td class=${step.side}>${nameOf(step.from)}</td>
                <td>${saying(step.type)}</td>
                <td class="number">${step.price === null ? "" : rhb(step.price)}</td>
                <td>${badge(step.valid)}</td>
              </tr>`;
            })}
          </tbody>
        </table>
      </div>
    </section>`;
  }

  #contract() {
    const won = this.#winner();
    if (!won) return nothing;
    /** @type {[string, unknown][]} */
    const facts = [
      ["deal", won.agreement],
      ["buyer", this.talk.buyer],
      ["seller", won.seller],
      ["asked → agreed", `${rhb(won.asked ?? won.agreed)} → ${rhb(won.agreed)} RHB`],
      ["paid", won.paid ? `${rhb(won.paid)} RHB` : "not yet"],
      ["hold", won.hold ?? "none"],
      ["capture", won.tx ?? "none"],
    ];
    return html`<section class="card">
      <h2>Contract and payment</h2>
      <dl class="facts">
        ${facts.map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}
      </dl>
      <p>
        <a href="/v1/deals/${won.agreement}">The deal as data</a>: agreement, both signatures, receipt,
        inclusion proof.
      </p>
    </section>`;
  }

  render() {
    if (this.problem)
      return html`<h1>Negotiation …${short(this.group)}</h1>
        <p role="alert" class="bad">${this.problem}</p>
        <p><a href="/">Back to the market</a></p>`;
    if (!this.talk) return html`<h1>Negotiation</h1><p class="empty">Loading…</p>`;
    return html`
      <p><a href="/">← The market</a></p>
      <h1>${this.talk.skill} <span class="tag">${this.talk.mode}</span></h1>
      <p class="lead">${this.#sentence()}</p>
      ${this.#rail()}
      <div class="columns wide">${this.#curve()}${this.#messages()}</div>
      ${this.#contract()}
    `;
  }
}

customElements.define("rahba-negotiation", Negotiation);
