// @ts-check
/**
 * The head of the ledger, checked in this browser.
 *
 * The signature of the checkpoint is verified, and that the log only grew since the last
 * checkpoint this browser saw (kept in localStorage): a rewritten log shows red and stays red.
 */

import { signal } from "@preact/signals-core";
import { extendsLog, openCheckpoint } from "./verify.js";

const SEEN = "rahba.checkpoint";

/** @typedef {{size: number, root: string, verdict: "good" | "bad" | "unchecked", why: string}} Head */

export const head = signal(/** @type {Head | null} */ (null));

/** @param {{origin: string, size: number, root: string}} fresh */
async function growth(fresh) {
  const kept = JSON.parse(localStorage.getItem(SEEN) ?? "null");
  if (!kept || kept.origin !== fresh.origin || kept.size === 0) return { good: true, since: 0 };
  if (fresh.size < kept.size) return { good: false, since: kept.size };
  const answer = await fetch(`/v1/log/proof/consistency?old=${kept.size}&new=${fresh.size}`);
  if (!answer.ok) return { good: null, since: kept.size };
  const body = await answer.json();
  const good = await extendsLog(kept.size, fresh.size, kept.root, fresh.root, body.path);
  return { good, since: kept.size };
}

/** Fetches the newest checkpoint and checks it; while the gateway is away nothing changes. */
export async function checkHead() {
  await look().catch(() => undefined); // the header says that the gateway is away
}

async function look() {
  const [note, key] = await Promise.all(
    ["/v1/log/checkpoint", "/v1/log/key"].map(async (address) => {
      const answer = await fetch(address);
      return answer.ok ? answer.text() : "";
    }),
  );
  if (!note || !key) return;
  const fresh = await openCheckpoint(note, key);
  const facts = { size: fresh.size, root: fresh.root };
  if (fresh.valid === null) {
    head.value = { ...facts, verdict: "unchecked", why: "this browser has no Ed25519 here" };
    return;
  }
  if (!fresh.valid) {
    head.value = { ...facts, verdict: "bad", why: "the checkpoint's signature does not verify" };
    return;
  }
  const { good, since } = await growth(fresh);
  if (good === false) {
    const why = `the log was rewritten: it does not extend the ${since} entries seen before`;
    head.value = { ...facts, verdict: "bad", why };
    return;
  }
  const grown = since ? `, and it extends the ${since} entries seen before` : "";
  const why = `its signature verifies here${grown}`;
  head.value = { ...facts, verdict: good ? "good" : "unchecked", why };
  if (good) localStorage.setItem(SEEN, JSON.stringify(fresh));
}
