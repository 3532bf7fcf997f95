import type { Invocation } from "./parse.ts";
import { exitStatusOf, printable } from "../errors.ts";
import { hostStatus } from "../host_lock.ts";
import { unknownGuest } from "../manager/absent_guest.ts";
import { chooseGuest, damagedRecord } from "../manager/find_guest.ts";
import { faultOfHost, type HostView, type ObservedGuest } from "../manager/guest_view.ts";
import { unprotectedText } from "../manager/unprotected.ts";
import { guestsResult } from "../report/results.ts";
import type { CliContext } from "./context.ts";
import { openSession } from "./session.ts";
import { type Colour, formatTable, type TableCell } from "./table.ts";

/** `lockvisor status`: the guests of this host, with the locks that the kernel shows. */
export async function run({ options, arguments: [guest] }: Invocation, context: CliContext): Promise<number> {
  const session = await openSession(options, context);
  const host = await hostStatus(session);
  // "No guests" would be more than is known then.
  if (host.fault !== undefined && host.guests.length === 0) throw host.fault;
  const guests = guest === undefined ? host.guests : selectGuest(host, guest);
  if (options.isGiven("names")) {
    context.out(guests.map(({ view }) => `${printable(view.name)}\n`).join(""));
    return 0;
  }
  // What is known is told, and why the rest is not: with --json in one document.
  const fault = guest === undefined ? faultOfHost(host) : host.fault;
  context.out(
    options.isGiven("json")
      ? JSON.stringify(guestsResult(guests, fault)) + "\n"
      : formatGuests(guests, context),
  );
  if (fault === undefined) return 0;
  context.note(fault.message);
  return exitStatusOf(fault.code);
}

/**
 * The guest of a name or UUID; one that migrates within this host is there twice.
 * @throws {LockvisorError} `data` when there is none, or when a name fits several
 */
function selectGuest(host: HostView, nameOrUuid: string): ObservedGuest[] {
  const views = host.guests.map(({ view }) => view);
  const chosen = chooseGuest(nameOrUuid, views, ({ state }) => state === "stopped" ? "dead" : "alive");
  const found = host.guests.filter(({ view }) => view.uuid === chosen?.uuid);
  if (found.length > 0) return found;
  const damaged = host.damaged.find(({ uuid }) => uuid === nameOrUuid.toLowerCase());
  if (damaged !== undefined) throw damagedRecord(damaged);
  throw unknownGuest(nameOrUuid);
}

function formatGuests(guests: readonly ObservedGuest[], context: CliContext): string {
  if (guests.length === 0) return "no guests\n";
  const rows = guests.map(({ view, locks }): TableCell[] => [
    printable(view.name),
    { text: view.state, colour: STATE_COLOUR[view.state] },
    String(view.pid),
    view.since,
    locksCell(locks, view.resources.filter(({ unprotected }) => unprotected !== undefined).length),
    printable(view.resources.filter(({ type }) => type === "disk").map(({ name }) => name).join(" ") || "-"),
  ]);
  const table = formatTable(["NAME", "STATE", "PID", "SINCE", "LOCKS", "DISKS"], rows, context.colours);
  return table + guests.map((guest) => unprotectedLines(guest) + jobLines(guest)).join("");
}

const STATE_COLOUR: Record<ObservedGuest["view"]["state"], Colour> = {
  starting: "yellow",
  running: "green",
  paused: "yellow",
  "migrating-out": "yellow",
  incoming: "yellow",
  "lock-lost": "red",
  stopped: "none",
};

function unprotectedLines({ view }: ObservedGuest): string {
  return view.resources.flatMap(({ type, name, unprotected }) =>
    unprotected === undefined
      ? []
      : [printable(`guest "${view.name}": ${unprotectedText({ type, name, unprotected })}`) + "\n"]
  ).join("");
}

function jobLines({ view: { name, jobs = [] } }: ObservedGuest): string {
  return jobs.map(({ kind, disk, target }) => {
    const where = target === null ? "" : ` to ${target}`;
    return printable(`guest "${name}": a ${kind} of its disk "${disk}"${where} is under way`) + "\n";
  }).join("");
}

/** Keys held of keys recorded; a `?` where the kernel does not show them. */
function locksCell({ held, unknown, total }: ObservedGuest["locks"], unprotected: number): TableCell {
  if (total === 0 && unprotected === 0) return "none";
  const doubts = [
    ...unknown > 0 ? [`${unknown} ?`] : [],
    ...unprotected > 0 ? [`${unprotected} unprotected`] : [],
  ];
  const text = `${held}/${total}` + (doubts.length > 0 ? ` (${doubts.join(", ")})` : "");
  return { text, colour: held + unknown < total ? "red" : doubts.length > 0 ? "yellow" : "none" };
}
