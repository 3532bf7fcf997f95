import type { Carrier, GrantedKey, RunningGuest } from "../driver/contract.ts";
import type { WithdrawOutcome } from "../driver/migration.ts";
import { failpoint } from "../failpoint.ts";
import { noteOf } from "../lockspace/grant.ts";
import { removeNote, writeNotes } from "../lockspace/holder_note.ts";
import { keyState } from "../lockspace/key_state.ts";
import type { Lockspace } from "../lockspace/lockspace.ts";
import { offerIfReadable, removeOffer } from "../lockspace/migration_offer.ts";
import { batchesOf, takeBackSteps } from "../lockspace/migration_steps.ts";
import { countAgain } from "./count_again.ts";
import {
  giveUpSlots,
  requireReachOfCarriers,
  takeSlots,
  type WantedSlot,
  withBothSlots,
} from "./migration_slots.ts";
import { type LeavingGuest, modeOf, noSuchStep, othersWithSlot } from "./migration_source.ts";

/**
 * Takes slot b of every key back, which proves that whoever had come in has ended; then offers them no more. Where somebody
 * had come in, the keys were granted once more, so they are counted again.
 */
export async function withdrawSlots(
  lockspace: Lockspace,
  { running, leaseKeys, ...grantee }: LeavingGuest,
  confirm: () => Promise<"keep" | "decline">,
): Promise<WithdrawOutcome> {
  const { carriers, guest } = running;
  const keys = [...new Set([...leaseKeys, ...running.resources.flatMap((resource) => resource.keys)])].sort();
  const wanted = keys.map((key): WantedSlot => ({ key, mode: modeOf(running, key) }));
  requireReachOfCarriers(lockspace, carriers, keys);
  let grants: readonly GrantedKey[] = running.grants;
  for (const { step, keys } of batchesOf(takeBackSteps(wanted))) {
    switch (step) {
      case "take": {
        const obstacle = await takeToKeep(lockspace, { carriers, wanted, host: grantee.host }, confirm);
        if (obstacle !== undefined) return obstacle;
        break;
      }
      case "count":
        grants = countAgain(
          lockspace,
          { ...grantee, guest },
          wanted.map((each) => judge(lockspace, running, each)),
        );
        failpoint("migrate-cancel.counted");
        break;
      case "write-note":
        writeNotes(lockspace, keys, noteOf({ ...grantee, guest }, grants));
        break;
      case "remove-offer":
        for (const key of keys) removeOfferWithNote(lockspace, key, guest.uuid);
        failpoint("migrate-cancel.noted");
        break;
      default:
        throw noSuchStep(step);
    }
  }
  return { outcome: "withdrawn", carriers: withBothSlots(lockspace, carriers, keys), grants };
}

/** Takes the slots and asks whether they are to be kept; tells why not, if they are not. */
async function takeToKeep(
  lockspace: Lockspace,
  { carriers, wanted, host }: {
    carriers: readonly Carrier[];
    wanted: readonly WantedSlot[];
    host: { id: string; name: string };
  },
  confirm: () => Promise<"keep" | "decline">,
): Promise<Exclude<WithdrawOutcome, { outcome: "withdrawn" }> | undefined> {
  const result = takeSlots(lockspace, carriers, {
    wanted,
    slot: "b",
    passed: () => failpoint("migrate-cancel.slot-taken"),
  });
  if (result.outcome === "lost") return result;
  if (result.outcome === "refused") {
    return {
      outcome: "taken",
      key: result.key,
      holders: othersWithSlot(lockspace, result.key, { carriers, host }),
    };
  }
  failpoint("migrate-cancel.taken");
  let wish: "keep" | "decline" = "decline";
  try {
    wish = await confirm();
  } finally {
    if (wish === "decline") {
      const keys = wanted.map(({ key }) => key);
      giveUpSlots(lockspace, carriers, {
        keys,
        slot: "b",
        passed: () => failpoint("migrate-cancel.slot-declined"),
      });
    }
  }
  return wish === "keep" ? undefined : { outcome: "declined" };
}

/** Whether a key is to be counted again: it was granted to whoever had come in. */
function judge(lockspace: Lockspace, running: RunningGuest, { key, mode }: WantedSlot) {
  const state = keyState(lockspace, key);
  const remembered = running.grants.find((grant) => grant.key === key) ?? { key, mode, generation: 0 };
  const isCounted = (state?.generation ?? 0) === remembered.generation || isOwn(state, running);
  return { remembered, state, verdict: isCounted ? "counted" as const : "changed" as const };
}

/** The offer, and the note of whoever had come in by it and has ended. */
function removeOfferWithNote(lockspace: Lockspace, key: string, uuid: string): void {
  const taken = offerIfReadable(lockspace, key, uuid)?.taken;
  if (taken !== undefined) removeNote(lockspace, key, taken.host.id, uuid, "incoming");
  removeOffer(lockspace, key, uuid);
}

/** A cancel that was cut off has counted it already. */
function isOwn(state: ReturnType<typeof keyState>, { process }: RunningGuest): boolean {
  const last = state?.lastGrant?.process;
  return last?.pid === process.pid && last.startTime === process.startTime && last.bootId === process.bootId;
}
