import type { GrantedKey } from "../driver/contract.ts";
import { countGrants, type Grantee } from "../lockspace/grant.ts";
import type { KeyState } from "../lockspace/key_state.ts";
import type { Lockspace } from "../lockspace/lockspace.ts";
import type { GenerationVerdict } from "./generation_check.ts";

/** A key that a guest has again, with what it remembers of it and what is written of it now. */
export interface JudgedKey {
  remembered: GrantedKey;
  state: KeyState | undefined;
  verdict: GenerationVerdict;
}

/** Counts the grants of keys that a guest has taken again, but for those that a command counted that was cut off. */
export function countAgain(
  lockspace: Lockspace,
  grantee: Pick<Grantee, "guest" | "host" | "process">,
  judged: readonly JudgedKey[],
): GrantedKey[] {
  const counted = judged.filter(({ verdict }) => verdict === "counted").map(({ remembered, state }) => ({
    ...remembered,
    generation: state?.generation ?? remembered.generation,
  }));
  // A key that was never granted exclusively has no state, and a shared grant does not make one.
  const uncounted = judged.filter(({ verdict }) => verdict !== "counted");
  const plan = uncounted.flatMap(({ remembered: { key, mode }, state }) =>
    state === undefined ? [] : [{ key, mode, identity: state.identity }]
  );
  const stateless = uncounted.filter(({ state }) => state === undefined)
    .map(({ remembered }) => ({ ...remembered, generation: 0 }));
  return [...counted, ...countGrants(lockspace, grantee, plan), ...stateless];
}
