// @ts-check
/** Names of agents: a did is shown by the name on its card, where the directory knows it. */

import { signal } from "@preact/signals-core";
import { short } from "./format.js";

/** @type {import("@preact/signals-core").Signal<Map<string, string>>} */
export const names = signal(new Map());

/** @param {string} did */
export function nameOf(did) {
  return names.value.get(did) ?? `buyer …${short(did)}`;
}

/** Reads the directory once more. */
export async function refreshNames() {
  const answer = await fetch("/v1/agents?limit=100");
  if (!answer.ok) return 0;
  const { agents } = await answer.json();
  const fresh = new Map(names.value);
  for (const agent of agents) fresh.set(agent.id, agent.name);
  names.value = fresh;
  return agents.length;
}
