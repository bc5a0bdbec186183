// @ts-check
/** The market page: figures, the live feed, talks in progress, what skills cost. */

import { batch, signal } from "@preact/signals-core";
import { html, nothing } from "lit";
import uPlot from "uplot";
import { miniCurve } from "./curve.js";
import { ROWS, events, listen, paused, resume, waiting } from "./feed.js";
import { clock, rhb, short } from "./format.js";
import { checkHead, head } from "./ledger.js";
import { nameOf, online, refreshNames } from "./names.js";
import { sellersCard } from "./sellers.js";
import { expected, forecasts, refreshForecasts } from "./prices.js";
import { SignalElement } from "./signals.js";

/** @typedef {import("./feed.js").MarketEvent} MarketEvent */
/**
 * @typedef {object} Talk one request, as the feed tells of it
 * @property {string} group
 * @property {string} skill
 * @property {string} mode
 * @property {string} buyer
 * @property {{side: "buyer" | "seller", price: bigint}[]} prices
 * @property {string} state
 * @property {Set<string>} open threads in which nothing is decided
 */

const KEPT_TALKS = 60;
const KEPT_DEALS = 500;
const MINUTE_MS = 60_000;
const LOOK_MS = 5_000;
const FORECAST_EVERY = 3;

/** @type {import("@preact/signals-core").Signal<Map<string, Talk>>} */
const talks = signal(new Map());
/** @type {Map<string, string>} which request a thread belongs to */
const groups = new Map();
/** @type {import("@preact/signals-core").Signal<{at: number, skill: string, paid: bigint}[]>} */
const deals = signal([]);
const trouble = signal("");
/** @type {Record<string, string>} */
const ENDINGS = { accepted: "agreed", held: "held", delivered: "delivered", settled: "settled", failed: "failed" };

/** @param {MarketEvent} event */
function note(event) {
  const { kind, data } = event;
  const group = data.group ?? groups.get(data.thread);
  if (!group) return;
  if (data.thread) groups.set(data.thread, group);
  const all = new Map(talks.value);
  const talk = all.get(group) ?? {
    group,
    skill: data.skill ?? "",
    mode: data.mode ?? "",
    buyer: data.buyer ?? "",
    prices: [],
    state: "open",
    open: new Set(),
  };
  const open = new Set(talk.open);
  if (kind === "negotiation.opened") open.add(data.thread);
  if (kind === "closed" || kind === "refused") open.delete(data.thread);
  const over = talk.state === "open" && talk.open.size > 0 && open.size === 0;
  const side = /** @type {"buyer" | "seller"} */ (data.side ?? "seller");
  const price = data.price === undefined ? [] : [{ side, price: BigInt(data.price) }]; // or sealed
  all.set(group, {
    ...talk,
    skill: talk.skill || data.skill || "",
    mode: talk.mode || data.mode || "",
    prices: [...talk.prices, ...price].slice(-40),
    state: ENDINGS[kind] ?? (over ? "closed" : talk.state),
    open,
  });
  while (all.size > KEPT_TALKS) all.delete(all.keys().next().value ?? "");
  if (groups.size > 10 * KEPT_TALKS) groups.clear();
  batch(() => {
    talks.value = all;
    if (kind === "settled") {
      const deal = { at: event.ts, skill: data.skill, paid: BigInt(data.paid) };
      deals.value = [...deals.value, deal].slice(-KEPT_DEALS);
    }
  });
}

listen(note);

/** @param {MarketEvent} event */
function sentence({ kind, data }) {
  const link = data.group
    ? html`<a href="/negotiations/${data.group}">${data.skill ?? "negotiation"}</a>`
    : data.skill;
  switch (kind) {
    case "agent.listed":
      return html`<b>${data.name}</b> offers ${data.skills.join(", ")}`;
    case "agent.left":
      return html`<b>${nameOf(data.agent)}</b> left the market`;
    case "negotiation.opened":
      return html`<b>${nameOf(data.buyer)}</b> asks ${data.sellers.length} for ${link} (${data.mode})`;
    case "offer":
      return html`<b>${nameOf(data.from)}</b> offers
        <a href="/negotiations/${data.group}"
          >${data.price === undefined ? "a sealed price" : `${rhb(data.price)} RHB`}</a
        >`;
    case "offer.revealed":
      return html`the sealed offer of <b>${nameOf(data.from)}</b> was
        <a href="/negotiations/${data.group}">${rhb(data.price)} RHB</a>`;
    case "accepted":
      return html`<b>${nameOf(data.buyer)}</b> and <b>${nameOf(data.seller)}</b> agree on ${link} for
        ${rhb(data.price)} RHB`;
    case "held":
      return html`${rhb(data.amount)} RHB held for the job`;
    case "delivered":
      return html`result of deal …${short(data.agreement)} delivered`;
    case "settled":
      return html`<b>${nameOf(data.seller)}</b> was paid ${rhb(data.paid)} RHB for ${link}`;
    case "failed":
      return html`a job failed (${data.code}); the money went back`;
    case "anomaly.price":
      return html`<b>${nameOf(data.seller)}</b> sold ${data.skill} at an odd price: ${data.reason}`;
    case "anomaly.ring":
      return html`money in a circle: ${data.reason}`;
    default:
      return html`${kind} ${data.code ?? ""}`;
  }
}

/** @param {bigint[]} values */
function median(values) {
  const sorted = [...values].sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
  return sorted.length ? sorted[Math.floor(sorted.length / 2)] : null;
}

class PriceChart extends SignalElement {
  static properties = { skill: {} };
  /** @type {uPlot | undefined} */
  #plot;

  constructor() {
    super();
    this.skill = "";
  }

  render() {
    return html`<div class="plot" aria-hidden="true"></div>`;
  }

  updated() {
    const mine = deals.value.filter((deal) => deal.skill === this.skill);
    const last = mine.at(-1)?.at ?? 0;
    const reach = last + Math.max(last - (mine[0]?.at ?? 0), MINUTE_MS); // no further than it goes back
    const steps = (forecasts.value.get(this.skill)?.steps ?? []).filter(
      (step) => step.start > last && step.start <= reach,
    );
    /** @type {uPlot.AlignedData} */
    const data = [
      [...mine.map((deal) => deal.at / 1000), ...steps.map((step) => step.start / 1000)],
      [...mine.map((deal) => Number(deal.paid) / 1e9), ...steps.map(() => null)],
      [...mine.map(() => null), ...steps.map((step) => Number(step.value_fals) / 1e9)],
    ];
    const colour = getComputedStyle(this).getPropertyValue("--accent").trim();
    this.#plot ??= new uPlot(
      {
        width: innerWidth < 480 ? 80 : 150,
        height: 36,
        cursor: { show: false },
        legend: { show: false },
        axes: [{ show: false }, { show: false }],
        series: [
          {},
          { stroke: colour, width: 2, points: { show: true, size: 4 } },
          { stroke: colour, width: 1, dash: [3, 3], points: { show: false } },
        ],
      },
      data,
      /** @type {HTMLElement} */ (this.querySelector(".plot")),
    );
    this.#plot.setData(data);
  }

  disconnectedCallback() {
    super.disconnectedCallback();
    this.#plot?.destroy();
    this.#plot = undefined;
  }
}

class Market extends SignalElement {
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #timer;

  connectedCallback() {
    super.connectedCallback();
    checkHead();
    let looks = 0;
    this.#timer = setInterval(() => {
      checkHead();
      looks += 1;
      if (looks % FORECAST_EVERY === 1) {
        refreshForecasts([...new Set(deals.value.map((deal) => deal.skill))]);
      }
    }, LOOK_MS);
  }

  disconnectedCallback() {
    super.disconnectedCallback();
    clearInterval(this.#timer);
  }

  async #deploy() {
    const key = sessionStorage.getItem("rahba.key") ?? this.querySelector("input")?.value ?? "";
    trouble.value = "";
    for (const name of ["summarise", "keywords", "sentiment"]) {
      const answer = await fetch("/v1/deployments", {
        method: "POST",
        headers: {
          authorization: `Bearer ${key}`,
          "content-type": "application/json",
          "idempotency-key": `dashboard-${name}-${crypto.randomUUID()}`,
        },
        body: JSON.stringify({ template: name, name, config: {} }),
      }).catch(() => null);
      if (!answer?.ok) {
        const problem = answer ? await answer.json() : { detail: "the gateway does not answer" };
        trouble.value = problem.detail ?? problem.title;
        return;
      }
    }
    await refreshNames();
  }

  #strip() {
    const recent = deals.value.filter((deal) => deal.at > Date.now() - MINUTE_MS);
    const value = deals.value.reduce((sum, deal) => sum + deal.paid, 0n);
    const middle = median(deals.value.map((deal) => deal.paid));
    const open = [...talks.value.values()].filter((talk) => talk.state === "open").length;
    const top = head.value;
    const figures = [
      ["agents online", online.value ?? "–"],
      ["open negotiations", open],
      ["deals a minute", recent.length],
      [`settled in ${deals.value.length} deals`, `${rhb(value)} RHB`],
      ["median price", middle === null ? "–" : `${rhb(middle)} RHB`],
    ];
    return html`<dl class="strip">
      ${figures.map(([label, figure]) => html`<div><dt>${label}</dt><dd>${figure}</dd></div>`)}
      <div>
        <dt>ledger</dt>
        <dd>
          ${top ? html`${top.size} entries` : "–"}
          ${
            top
              ? html`<details class="badge ${top.verdict}">
                  <summary>
                    ${{ good: "✓ checked in this browser", bad: "✗ check failed", unchecked: "not checked" }[top.verdict]}
                  </summary>
                  <p>How do we know? Of the checkpoint: ${top.why}. Root ${top.root}</p>
                </details>`
              : nothing
          }
        </dd>
      </div>
    </dl>`;
  }

  #empty() {
    return html`<section class="card empty">
      <h2>No offers yet</h2>
      <p>Nobody sells anything here. Deploy an agent from a template:</p>
      <pre><code>rahba deploy summarise</code></pre>
      <p>or let three start now (this needs an API key, see <code>rahba keys new</code>):</p>
      <p class="row">
        ${
          sessionStorage.getItem("rahba.key")
            ? nothing
            : html`<label>API key <input type="password" autocomplete="off" /></label>`
        }
        <button @click=${this.#deploy}>Deploy three agents</button>
      </p>
      ${trouble.value ? html`<p role="alert" class="bad">${trouble.value}</p>` : nothing}
    </section>`;
  }

  #feed() {
    return html`<section class="card feed">
      <div class="row">
        <h2>Feed</h2>
        <button
          aria-pressed=${paused.value ? "true" : "false"}
          @click=${() => (paused.value ? resume() : (paused.value = true))}
        >
          ${paused.value ? `Resume (${waiting.value} new)` : "Pause"}
        </button>
      </div>
      <ol class="scroll" tabindex="0" aria-label="Events, newest first">
        ${events.value
          .slice(0, ROWS)
          .map((event) => html`<li data-id=${event.id} class=${event.kind.replace(".", "-")}>
            <time>${clock(event.ts)}</time> <span>${sentence(event)}</span>
          </li>`)}
      </ol>
    </section>`;
  }

  #talks() {
    const rows = [...talks.value.values()].filter((talk) => talk.skill).reverse().slice(0, 12);
    return html`<section class="card">
      <h2>Negotiations</h2>
      ${
        rows.length === 0
          ? html`<p class="empty">None so far. <code>rahba call text.summarise --arg text=@FILE</code> opens one.</p>`
          : html`<ul class="talks">
              ${rows.map(
                (talk) => html`<li>
                  <a href="/negotiations/${talk.group}">${talk.skill}</a>
                  <span class="tag">${talk.mode}</span>
                  ${miniCurve(talk.prices, !["open", "failed", "closed"].includes(talk.state))}
                  <span class="state ${talk.state}">${talk.state}</span>
                </li>`,
              )}
            </ul>`
      }
    </section>`;
  }

  #prices() {
    const skills = [...new Set(deals.value.map((deal) => deal.skill))].sort();
    if (skills.length === 0) return nothing;
    return html`<section class="card">
      <h2>Prices paid</h2>
      <table>
        <thead><tr><th scope="col">Skill</th><th scope="col">Deals</th><th scope="col">Median RHB</th><th scope="col">Course</th></tr></thead>
        <tbody>
          ${skills.map((skill) => {
            const paid = deals.value.filter((deal) => deal.skill === skill).map((deal) => deal.paid);
            return html`<tr>
              <td>${skill}</td><td class="number">${paid.length}</td>
              <td class="number">${rhb(median(paid) ?? 0n)}</td>
              <td><rahba-price-chart .skill=${skill}></rahba-price-chart></td>
            </tr>
            ${expected(skill)}`;
          })}
        </tbody>
      </table>
    </section>`;
  }

  render() {
    const bare = online.value === 0 && talks.value.size === 0;
    return html`
      <h1>The market</h1>
      ${this.#strip()}
      ${bare ? this.#empty() : nothing}
      <div class="columns">
        ${this.#feed()}
        <div>${this.#talks()}${sellersCard()}${this.#prices()}</div>
      </div>
    `;
  }
}

customElements.define("rahba-price-chart", PriceChart);
customElements.define("rahba-market", Market);

const fragment = new URLSearchParams(location.hash.slice(1));
if (fragment.has("key")) {
  sessionStorage.setItem("rahba.key", fragment.get("key") ?? "");
  history.replaceState(null, "", location.pathname);
}
