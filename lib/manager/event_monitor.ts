import { eventSocket } from "../qemu/monitor.ts";
import { findQemu } from "../qemu/program.ts";
import { readSettings } from "../qemu/settings.ts";
import type { GuestRecord } from "./guest_record.ts";

/** A start is one command: it is read once. */
const known = new WeakMap<readonly string[], string | null>();

/**
 * The QMP socket that a guest's QEMU has for the agent to hear events on, by the guest's own command line. QEMU talks to one
 * client at a time on each, so that whoever listens for events must have one to itself. Undefined where there is none.
 */
export function eventMonitorOf(
  { command, carriers: [{ pid }] }: Pick<GuestRecord, "command" | "carriers">,
): string | undefined {
  const noted = known.get(command);
  if (noted !== undefined) return noted ?? undefined;
  const found = socketOf(command, `/proc/${pid}/cwd`);
  known.set(command, found ?? null);
  return found;
}

function socketOf(command: readonly string[], directory: string): string | undefined {
  const qemu = findQemu(command, () => undefined);
  if (qemu === undefined) return undefined;
  try {
    const config = { read: (path: string) => Deno.readTextFileSync(path), readDefault: () => undefined };
    return eventSocket(readSettings(qemu.args, config), directory);
  } catch {
    return undefined; // whoever has started it without looking at its options wanted it so
  }
}
