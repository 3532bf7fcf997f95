import { findQemu } from "../qemu/program.ts";
import { monitorSockets } from "../qemu/monitor.ts";
import { readSettings } from "../qemu/settings.ts";
import { monitorPath } from "./guest_monitor.ts";
import type { GuestRecord } from "./guest_record.ts";

/** A start is one command: it is read once. */
const known = new WeakMap<readonly string[], string | null>();

/**
 * A QMP socket that a guest's QEMU listens on beside the one that commands use, by the guest's own command line: QEMU talks
 * to one client at a time on each, and whoever listens for events stays there. Undefined where there is none.
 */
export function eventMonitorOf(
  { command, qmp, carriers: [{ pid }] }: Pick<GuestRecord, "command" | "qmp" | "carriers">,
): string | undefined {
  if (qmp === null) return undefined;
  const noted = known.get(command);
  if (noted !== undefined) return noted ?? undefined;
  // A socket has one inode, whatever leads to it. Before QEMU listens one might be taken for the other.
  const commands = inodeOf(monitorPath(qmp, pid));
  const sockets = socketsOf(command, `/proc/${pid}/cwd`).map((path) => ({ path, inode: inodeOf(path) }));
  if (commands === undefined || sockets.some(({ inode }) => inode === undefined)) return undefined;
  const found = sockets.find(({ inode }) => inode !== commands)?.path;
  known.set(command, found ?? null);
  return found;
}

function socketsOf(command: readonly string[], directory: string): string[] {
  const qemu = findQemu(command, () => undefined);
  if (qemu === undefined) return [];
  try {
    return monitorSockets(
      readSettings(qemu.args, { read: readConfig, readDefault: () => undefined }),
      directory,
    );
  } catch {
    return []; // whoever has started it without looking at its options wanted it so
  }
}

function readConfig(path: string): string {
  return Deno.readTextFileSync(path);
}

function inodeOf(path: string): string | undefined {
  try {
    const { dev, ino } = Deno.statSync(path);
    return `${dev}:${ino}`;
  } catch {
    return undefined;
  }
}
