// @ts-check
/**
 * Balances and histories, checked in the browser as `rahba.balance` checks them.
 *
 * The way leads from the log's key to the last fals: checkpoint, `state` leaf, root of the
 * Merkle-sum tree, account. Answers are `true`, `false`, or `null` as in `verify.js`.
 */

import {
  bytesOf,
  hex,
  includesLeaf,
  joined,
  keyOf,
  leafHash,
  openCheckpoint,
  openEnvelope,
  readVerifierKey,
  sha256,
  sides,
  unhex,
  within,
} from "./verify.js";

const TX_TYPE = "application/vnd.rahba.tx+json";
const SUM_BYTES = 16;
const RECORD_BYTES = SUM_BYTES + 32;
const LIMIT = 1n << 127n;
const MAX_STEPS = 63;

/**
 * An account under a signed checkpoint, as the ledger sends it.
 * @typedef {{
 *   id: string, balance: string, nonces: string, tip: string, position: number,
 *   accounts: number, path: string[], state: string,
 *   inclusion: {index: number, leaf_hash: string, path: string[], checkpoint: string},
 * }} AccountProof
 */

/** @param {bigint} sum */
function sumBytes(sum) {
  if (sum < -LIMIT || sum >= LIMIT) throw new RangeError("a sum exceeds 127 bits");
  return unhex(BigInt.asUintN(128, sum).toString(16).padStart(32, "0"), SUM_BYTES);
}

/** @param {Uint8Array} record */
function sumOf(record) {
  return BigInt.asIntN(128, BigInt(`0x${hex(record.slice(0, SUM_BYTES))}`));
}

/** @param {Uint8Array} left @param {Uint8Array} right */
async function join(left, right) {
  const sum = sumBytes(sumOf(left) + sumOf(right));
  return joined(sum, await sha256(joined(Uint8Array.of(1), left, right)));
}

/** @param {AccountProof} proof */
async function leafRecord({ id, balance, nonces, tip, position }) {
  const name = new TextEncoder().encode(id);
  if (!/^(0|-?[1-9][0-9]{0,38})$/.test(balance)) throw new TypeError("not an amount");
  if (name.length < 1 || name.length > 255) throw new TypeError("not an account");
  if ((id === "issuance") !== (position === 0)) throw new TypeError("the issuance is at 0");
  const amount = BigInt(balance);
  if (amount < 0n && position !== 0) throw new RangeError("only the issuance may owe");
  const sum = sumBytes(amount);
  const head = Uint8Array.of(0, name.length);
  return joined(sum, await sha256(joined(head, name, sum, unhex(nonces), unhex(tip))));
}

/**
 * Returns the root that the account and the records beside its way lead to.
 * @param {AccountProof} proof
 */
async function rootOf(proof) {
  const { position, accounts, path } = proof;
  const inside = within(position, accounts - 1);
  const way = inside ? sides(position, accounts - 1) : [];
  if (!inside || way.length !== path.length || path.length > MAX_STEPS) {
    throw new RangeError("no such position");
  }
  let found = await leafRecord(proof);
  for (const [at, side] of way.entries()) {
    const record = unhex(path[at], RECORD_BYTES);
    // The outermost of all left brothers holds position 0; no other subtree may have a debt.
    const issues = side === "left" && !way.slice(at + 1).includes("left");
    if (!issues && sumOf(record) < 0n) throw new RangeError("a subtree has a negative sum");
    found = await (side === "left" ? join(record, found) : join(found, record));
  }
  if (sumOf(found) !== 0n) throw new RangeError("the balances do not add up to nothing");
  const count = unhex(accounts.toString(16).padStart(16, "0"), 8);
  return hex(await sha256(joined(Uint8Array.of(2), count, found)));
}

/**
 * Checks an account from the log's verifier key down: the checkpoint is signed by it, its last
 * leaf is a `state` leaf that the operator signed for that place, the account leads to the root in
 * that leaf, and all balances together are nothing.
 * @param {AccountProof} proof
 * @param {string} verifierKey
 * @returns {Promise<{id: string, balance: string, tip: string, size: number,
 *   valid: boolean | null}>}
 */
export async function verifyAccount(proof, verifierKey) {
  const { id, balance, tip, inclusion } = proof;
  const facts = { id, balance, tip, size: 0 };
  try {
    const { index, leaf_hash: leaf, path, checkpoint } = inclusion;
    const { size, root, valid } = await openCheckpoint(checkpoint, verifierKey);
    const included = await includesLeaf(leaf, index, size, path, root);
    const sameLeaf = hex(await leafHash(bytesOf(proof.state))) === leaf;
    const { key } = await readVerifierKey(verifierKey.trim());
    const { payload, kind, signers, valid: signed } = await openEnvelope(proof.state);
    const operator = signers.length === 1 ? keyOf(signers[0]) : null;
    const byOperator = operator !== null && hex(operator) === hex(key);
    const isState = kind === TX_TYPE && payload.type === "state" && byOperator;
    const here = isState && payload.prev_size === index;
    const leads = here && (await rootOf(proof)) === payload.root;
    const holds = sameLeaf && index === size - 1 && leads;
    return { ...facts, size, valid: holds && included && valid && signed };
  } catch {
    return { ...facts, valid: false };
  }
}

/**
 * Checks that entries (base64 of their bytes, oldest first) are an account's whole history.
 * @param {string[]} entries
 * @param {string} tip as an account's proof shows it
 * @returns {Promise<boolean | null>}
 */
export async function verifyHistory(entries, tip) {
  if (!globalThis.crypto?.subtle) return null;
  try {
    let found = new Uint8Array(32);
    for (const entry of entries) found = await sha256(joined(found, await leafHash(bytesOf(entry))));
    return hex(found) === tip;
  } catch {
    return false;
  }
}
