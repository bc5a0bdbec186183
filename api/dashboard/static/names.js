// @ts-check
/** Names of agents: a did is shown by the name on its card, where the directory knows it. */

import { batch, signal } from "@preact/signals-core";
import { short } from "./format.js";

/** @type {import("@preact/signals-core").Signal<Map<string, string>>} */
export const names = signal(new Map());

/** @param {string} did */
export function nameOf(did) {
  return names.value.get(did) ?? `buyer …${short(did)}`;
}

/** How many agents are listed now; unknown before the first look. */
export const online = signal(/** @type {number | null} */ (null));

/** Who is listed now, as far as one page goes. */
export const agents = signal(/** @type {import("./sellers.js").Seller[]} */ ([]));

/** Reads the directory once more; while the gateway is away everything stays as it was. */
export async function refreshNames() {
  const answer = await fetch("/v1/agents?limit=100").catch(() => null);
  if (!answer?.ok) return;
  const { agents: listed } = await answer.json();
  const fresh = new Map(names.value);
  for (const agent of listed) fresh.set(agent.id, agent.name);
  batch(() => {
    names.value = fresh;
    agents.value = listed;
    online.value = listed.length;
  });
}
