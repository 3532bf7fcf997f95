import { LockvisorError } from "../errors.ts";
import type { SignalName } from "../libc/pidfd.ts";
import { sendSignal } from "../process/ending.ts";
import type { GuestRecord } from "./guest_record.ts";

/** What a signal to a guest's process is for, so that a refusal tells what was not done. */
export type SignalPurpose = "stop" | "pause" | "continue" | "kill";

/**
 * Sends a signal to a guest's own process, and to no other; `none` only asks whether one might be sent. Says `ended`
 * when there is nobody to get it.
 * @throws {LockvisorError} `permission` without the right to signal it, `unavailable` when it is in another pid namespace
 */
export function signalGuest(
  { name, carriers: [process] }: Pick<GuestRecord, "name" | "carriers">,
  signal: SignalName,
  purpose: SignalPurpose,
): "sent" | "ended" {
  const outcome = sendSignal(process, signal);
  const guest = `guest "${name}" (pid ${process.pid})`;
  switch (outcome) {
    case "sent":
    case "ended":
      return outcome;
    case "not-permitted":
      throw new LockvisorError(
        "permission",
        `${guest} is another user's; ${purpose} it as that user or as root with the right to signal it (CAP_KILL; see kill(2))`,
      );
    case "unseen":
      throw new LockvisorError(
        "unavailable",
        `${guest} runs in another pid namespace; ${purpose} it from there`,
      );
  }
}
