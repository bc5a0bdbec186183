// @ts-check
/** The shell: header, state of the feed, and the page that the address names. */

import { effect, signal } from "@preact/signals-core";
import { html } from "lit";
import { connect, lastHeard, state, tries } from "./feed.js";
import { refreshNames } from "./names.js";
import { SignalElement } from "./signals.js";
import "./market.js";
import "./negotiation.js";

const path = signal(location.pathname);
const now = signal(Date.now());

/** @param {string} address */
function open(address) {
  history.pushState(null, "", address);
  path.value = location.pathname;
  document.querySelector("main")?.focus();
}

class App extends SignalElement {
  render() {
    const group = /^\/negotiations\/([0-9a-f]{32})$/.exec(path.value);
    const quiet = Math.round((now.value - lastHeard.value) / 1000);
    return html`
      <header class="bar">
        <a class="brand" href="/"><img src="/static/mark.svg" alt="" width="24" height="24" />Rahba</a>
        <span class="status ${state.value}" role="status">
          ${
            state.value === "live"
              ? "live"
              : state.value === "connecting"
                ? "connecting…"
                : `last event ${lastHeard.value ? `${quiet} s ago` : "never"}, reconnecting (try ${tries.value})`
          }
        </span>
      </header>
      <main id="main" tabindex="-1">
        ${
          group
            ? html`<rahba-negotiation .group=${group[1]}></rahba-negotiation>`
            : path.value === "/"
              ? html`<rahba-market></rahba-market>`
              : html`<h1>Nothing here</h1>
                  <p>No page has the address ${path.value}. <a href="/">Go to the market</a>.</p>`
        }
      </main>
    `;
  }
}

customElements.define("rahba-app", App);

document.addEventListener("click", (event) => {
  const link = /** @type {HTMLElement} */ (event.target).closest?.("a");
  if (!link || link.origin !== location.origin || event.ctrlKey || event.metaKey) return;
  if (link.pathname !== "/" && !link.pathname.startsWith("/negotiations/")) return;
  if (link.hash) return;
  event.preventDefault();
  open(link.pathname);
});
addEventListener("popstate", () => {
  path.value = location.pathname;
});
effect(() => {
  document.title = path.value === "/" ? "Rahba: the market" : "Rahba: a negotiation";
});
setInterval(() => {
  if (state.value === "lost") now.value = Date.now();
}, 1000);
connect();
refreshNames();
setInterval(refreshNames, 5000);
