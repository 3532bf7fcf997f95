import type { Circumstances } from "./migration_commands.ts";
import { decode, encode, settle, type State } from "./migration_state.ts";
import type { Transition } from "./state_search.ts";

/** What is searched: who wants which keys how, who drives QEMU, and what QEMU or people may do. */
export interface Scene extends Circumstances {
  /**
   * `never`: once all is sent, the source's QEMU does not fail any more. `late`: it waits for the destination's last
   * word (QEMU's return path), and fails if that dies before, though it may have run.
   */
  failsOnceSent: "never" | "late";
  /** Whether somebody continues by hand a destination that came up paused, with the source's migration cancelled. */
  continuesByHand: "only what has completed" | "anything";
}

/** Collects what can happen next. */
export class Ways {
  readonly found: Transition[] = [];
  readonly state: State;

  constructor(readonly code: number) {
    this.state = decode(code);
  }

  add(kind: Transition["kind"], change: (state: State) => string): void {
    const state = decode(this.code);
    const text = change(state);
    this.found.push({ to: encode(settle(state)), text, kind });
  }
}
