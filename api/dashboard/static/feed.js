// @ts-check
/**
 * The live feed: one EventSource for all pages, resumed after the last event that was seen.
 *
 * Keeps the newest 60 events for showing and counts the rest; tells how fresh it is. Paused, it
 * goes on counting and shows what came when it is resumed.
 */

import { batch, signal } from "@preact/signals-core";

/** @typedef {{id: string, kind: string, ts: number, data: any}} MarketEvent */

export const ROWS = 60;
const DRAW_EVERY_MS = 100;
const PAST = 500;
/** @type {import("@preact/signals-core").Signal<MarketEvent[]>} newest first */
export const events = signal([]);
export const paused = signal(false);
export const waiting = signal(0);
export const state = signal(/** @type {"connecting" | "live" | "lost"} */ ("connecting"));
export const lastHeard = signal(0);
export const tries = signal(0);

/** @type {Set<(event: MarketEvent) => void>} */
const listeners = new Set();
/** @type {MarketEvent[]} */
let held = [];
let lastId = "";
/** @type {EventSource | null} */
let source = null;

/** @param {(event: MarketEvent) => void} listener */
export function listen(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** @param {MarketEvent[]} fresh oldest first */
function show(fresh) {
  const rows = fresh.slice(-ROWS).reverse();
  events.value = [...rows, ...events.value].slice(0, ROWS);
}

/** @type {MarketEvent[]} */
let arrived = [];

/** @param {MessageEvent} message */
function heard(message) {
  const event = JSON.parse(message.data);
  lastId = event.id;
  if (arrived.push(event) === 1) setTimeout(flush, DRAW_EVERY_MS);
}

/** Tells the pages of what arrived since the last time: ten times a second at most. */
function flush() {
  const fresh = arrived;
  arrived = [];
  batch(() => {
    lastHeard.value = Date.now();
    if (paused.value) {
      held = [...held, ...fresh].slice(-ROWS);
      waiting.value += fresh.length;
    } else {
      show(fresh);
    }
    for (const event of fresh) for (const listener of listeners) listener(event);
  });
}

/** Shows what arrived while the feed was paused, and goes on. */
export function resume() {
  batch(() => {
    paused.value = false;
    waiting.value = 0;
    show(held);
    held = [];
  });
}

/** Opens the stream: after the last event seen, or with the newest of the past. */
export function connect() {
  if (source) return;
  source = new EventSource(`/v1/feed?${lastId ? `last_event_id=${lastId}` : `tail=${PAST}`}`);
  source.onopen = () => {
    batch(() => {
      state.value = "live";
      lastHeard.value = Date.now();
      tries.value = 0;
    });
  };
  source.onmessage = heard;
  source.onerror = () => {
    batch(() => {
      state.value = "lost";
      tries.value += 1;
    });
    if (source?.readyState === EventSource.CLOSED) {
      source = null;
      setTimeout(connect, 2000);
    }
  };
}
