// @ts-check
/**
 * Reading a negotiation from its signed messages: offers, who accepted, what followed.
 *
 * Nothing here trusts the server's summary: the points of the curve come from the payloads whose
 * signatures were checked in this browser (`verify.js`).
 */

import { openEnvelope } from "./verify.js";

/**
 * @typedef {object} Step one message of a thread
 * @property {string} id
 * @property {string} thread
 * @property {string} type
 * @property {string} from
 * @property {"buyer" | "seller"} side
 * @property {number} at ms
 * @property {number} round 1, 2, … for offers of one side; 0 for other messages
 * @property {bigint | null} price fals, for offers
 * @property {string} note
 * @property {boolean | null} valid the signature, as checked here
 */

/**
 * @param {{thread: string, buyer: string, seller: string, transcript: string[]}} thread
 * @returns {Promise<Step[]>}
 */
export async function stepsOf(thread) {
  /** @type {Record<string, number>} */
  const rounds = { buyer: 0, seller: 0 };
  const steps = [];
  for (const raw of thread.transcript) {
    const { payload, signers, valid } = await openEnvelope(raw);
    const side = payload.from === thread.buyer ? "buyer" : "seller";
    const offer = payload.body.offer?.issues ? payload.body.offer : null;
    if (offer) rounds[side] += 1;
    steps.push({
      id: payload.id,
      thread: thread.thread,
      type: payload.body.type,
      from: payload.from,
      side: /** @type {"buyer" | "seller"} */ (side),
      at: payload.ts,
      round: offer ? rounds[side] : 0,
      price: offer ? BigInt(offer.issues.price) : null,
      note: payload.body.note ?? payload.body.text ?? payload.body.reason ?? "",
      valid: valid && signers[0] === payload.from && payload.thread === thread.thread,
    });
  }
  return steps;
}

/** @param {string} type */
export function saying(type) {
  /** @type {Record<string, string>} */
  const words = {
    cfp: "asks for offers",
    quote: "quotes",
    counter: "counters with",
    accept: "accepts",
    order: "orders the work",
    result: "delivers the sealed result",
    reject: "ends the talk",
    refuse: "declines",
    withdraw: "takes the offer back",
    decommit: "leaves the agreement",
    failure: "reports a failure",
    not_understood: "did not understand",
  };
  return words[type] ?? type;
}

/** The states of a thread in their order; what follows the last good one is an ending. */
export const RAIL = ["discovered", "open", "agreed", "held", "delivered", "settled"];
