// @ts-check
/** A Lit element that draws itself again when a signal it read has changed. No shadow DOM. */

import { effect } from "@preact/signals-core";
import { LitElement } from "lit";

export class SignalElement extends LitElement {
  /** @type {(() => void) | undefined} */
  #dispose;
  #again = false;

  createRenderRoot() {
    return this;
  }

  performUpdate() {
    if (!this.isUpdatePending) return;
    this.#dispose?.();
    this.#again = false;
    this.#dispose = effect(() => {
      if (this.#again) {
        this.requestUpdate();
        return;
      }
      this.#again = true;
      super.performUpdate();
    });
  }

  connectedCallback() {
    super.connectedCallback();
    this.requestUpdate();
  }

  disconnectedCallback() {
    super.disconnectedCallback();
    this.#dispose?.();
    this.#dispose = undefined;
  }
}
