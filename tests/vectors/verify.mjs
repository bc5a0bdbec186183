/**
 * Checks every vector of `log.json` with the dashboard's own verifier; prints, as JSON, how many
 * there were and which of them it judged otherwise. Needs Node >= 18.
 */

import { readFileSync } from "node:fs";
import { webcrypto } from "node:crypto";

globalThis.crypto ??= webcrypto;

const { extendsLog, hex, bytesOf, includesLeaf, openCheckpoint, openReceipt } = await import(
  "../../api/dashboard/static/verify.js"
);
const { verifyAccount, verifyHistory } = await import("../../api/dashboard/static/balance.js");

const judges = {
  checkpoint: ({ note, vkey }) => openCheckpoint(note, vkey),
  inclusion: async ({ leaf, index, size, path, root }) => ({
    valid: await includesLeaf(leaf, index, size, path, root),
  }),
  consistency: async ({ old, new: size, old_root, new_root, path }) => ({
    valid: await extendsLog(old, size, old_root, new_root, path),
  }),
  receipt: async ({ text, vkey }) => {
    const found = await openReceipt(text, vkey);
    return { ...found, entry: hex(found.entry) };
  },
  balance: ({ proof, vkey }) => verifyAccount(proof, vkey),
  history: async ({ entries, tip }) => ({ valid: await verifyHistory(entries, tip) }),
};

const { cases } = JSON.parse(readFileSync(new URL("log.json", import.meta.url), "utf8"));
const wrong = [];
for (const { kind, name, valid, input, says = {} } of cases) {
  const found = await judges[kind](input);
  const said = { ...says, ...(says.entry ? { entry: hex(bytesOf(says.entry)) } : {}) };
  const same = Object.entries(said).every(([key, value]) => found[key] === value);
  if (found.valid !== valid || !same) wrong.push(`${kind}: ${name}`);
}
process.stdout.write(JSON.stringify({ cases: cases.length, wrong }));
