import { parseDuration } from "../config/duration.ts";
import {
  formatTicket,
  type MigrationTicket,
  parseTicket,
  processMigrateIn,
  processMigratePrepare,
} from "../domain_migration.ts";
import { LockvisorError, printable } from "../errors.ts";
import { endMigration, findMigration, finishCancel, type MigrationSide } from "../host_migrations.ts";
import { absolutePath } from "../identity/absolute_path.ts";
import type { ResourceSpec } from "../identity/resource.ts";
import { findLivingGuest } from "../manager/find_guest.ts";
import { DEFAULT_DRIVER } from "../manager/registry.ts";
import { holdersText } from "../manager/refusal.ts";
import { requireExecutable } from "../process/executable.ts";
import { launcherFault } from "../process/launcher.ts";
import { migrationEndResult, preparedResult } from "../report/results.ts";
import type { CliContext } from "./context.ts";
import type { Invocation, OptionValues } from "./parse.ts";
import { openSession } from "./session.ts";
import { readTicketText, writeTicketFile } from "./ticket_file.ts";

/** `lockvisor migrate prepare`: offers the second half of a guest's locks to whoever has the ticket. */
export async function prepare(
  { options, arguments: [name] }: Invocation,
  context: CliContext,
): Promise<number> {
  const to = options.text("to");
  if (to === undefined) {
    throw new LockvisorError("usage", "migrate prepare: where to? add --to HOSTURI, such as ssh://hv2");
  }
  const expires = options.text("expires");
  const lifetimeMs = expires === undefined ? undefined : parseLifetime(expires);
  const session = await openSession(options, context);
  const record = findLivingGuest(session.store, name!);
  const lock = await session.domainLock(record);
  const ticket = await processMigratePrepare(lock, record, { destination: to, lifetimeMs });
  handOutTicket(ticket, options, context);
  return 0;
}

/** A ticket is a secret that lies about until it expires. */
const LONGEST_LIFETIME_MS = 7 * 24 * 3_600_000;

function parseLifetime(text: string): number {
  const lifetimeMs = parseDuration("--expires", text);
  if (lifetimeMs <= LONGEST_LIFETIME_MS) return lifetimeMs;
  throw new LockvisorError("usage", `migrate prepare: --expires "${text}" is longer than a week (168h)`);
}

function handOutTicket(ticket: MigrationTicket, options: OptionValues, context: CliContext): void {
  const file = options.text("ticket");
  if (file !== undefined) writeTicketFile(file, formatTicket(ticket));
  if (options.isGiven("json")) {
    context.out(JSON.stringify(preparedResult(ticket, file)) + "\n");
  } else if (file === undefined) {
    context.out(formatTicket(ticket) + "\n");
  } else {
    const { guest, destination, expires } = ticket;
    context.out(
      printable(
        `guest "${guest.name}" may move to ${destination} until ${expires}; its ticket is in ${file}`,
      ) + "\n",
    );
  }
}

/** `lockvisor migrate in`: takes what the source offers, then becomes the command that waits for the guest. */
export async function comeIn({ options, userCommand }: Invocation, context: CliContext): Promise<number> {
  const [program, ...args] = userCommand;
  if (program === undefined) {
    throw new LockvisorError("usage", "migrate in: no command is given; add -- CMD ARG...");
  }
  const source = options.text("ticket");
  if (source === undefined) {
    throw new LockvisorError(
      "usage",
      "migrate in: by which ticket? add --ticket FILE, or --ticket - for standard input",
    );
  }
  const maps = options.texts("map").map(parseMap);
  refuseUnfitCommand([program, ...args], options);
  const ticket = parseTicket(readTicketText(source), source === "-" ? "standard input" : source);
  // A file that came from elsewhere does not say which code is loaded.
  const plugin = options.text("plugin") ?? DEFAULT_DRIVER;
  if (ticket.plugin !== plugin) {
    throw new LockvisorError(
      "data",
      `migrate in: the ticket of guest "${ticket.guest.name}" is for plugin ${ticket.plugin}, not for ${plugin}; say so by --plugin`,
    );
  }
  const session = await openSession(options, context);
  const lock = await session.domainLock({ plugin });
  const qmp = options.text("qmp");
  return await processMigrateIn(lock, {
    ticket,
    resources: mappedResources(ticket, maps),
    qmp: qmp === undefined ? undefined : absolutePath(qmp),
    command: [program, ...args],
  });
}

/** A resource is called otherwise here: `OLD=NEW`. */
interface NameMap {
  old: string;
  new: string;
}

function parseMap(text: string): NameMap {
  const equals = text.indexOf("=");
  if (equals > 0 && equals < text.length - 1) {
    return { old: text.slice(0, equals), new: text.slice(equals + 1) };
  }
  throw new LockvisorError("usage", `migrate in: --map "${text}" is not OLD=NEW`);
}

/** Paths below a mapped directory are mapped too; of several maps the longest counts. */
function mappedResources({ resources }: MigrationTicket, maps: readonly NameMap[]): ResourceSpec[] {
  const unused = new Set(maps);
  const mapped = resources.map(({ type, name, access }): ResourceSpec => {
    const fitting = maps.filter(({ old }) =>
      name === old || name.startsWith(old.endsWith("/") ? old : `${old}/`)
    )
      .sort((one, other) => other.old.length - one.old.length)[0];
    if (type !== "disk" || fitting === undefined) return { type, name, access };
    unused.delete(fitting);
    return { type, name: fitting.new + name.slice(fitting.old.length), access };
  });
  const [first] = unused;
  if (first === undefined) return mapped;
  const disks = resources.filter(({ type }) => type === "disk").map(({ name }) => name).join(", ");
  throw new LockvisorError(
    "data",
    `migrate in: --map ${first.old}=…: no disk of the guest is called so; it has: ${disks || "none"}`,
  );
}

function refuseUnfitCommand(command: [string, ...string[]], options: OptionValues): void {
  const fault = launcherFault(command);
  if (fault !== undefined && !options.isGiven("force-command")) {
    throw new LockvisorError(
      "usage",
      `migrate in: ${fault.launcher} ${fault.reason}; ${fault.remedy} (or add --force-command)`,
    );
  }
  requireExecutable(command[0]);
}

/** `lockvisor migrate complete`: the guest has moved. */
export function complete(invocation: Invocation, context: CliContext): Promise<number> {
  return end("complete", invocation, context);
}

/** `lockvisor migrate cancel`: the guest stays where it is. */
export function cancel(invocation: Invocation, context: CliContext): Promise<number> {
  return end("cancel", invocation, context);
}

async function end(
  action: "complete" | "cancel",
  { options, arguments: [name] }: Invocation,
  context: CliContext,
): Promise<number> {
  const waitMs = options.isGiven("wait") ? parseDuration("--wait", options.text("wait")!) : 0;
  const session = await openSession(options, context);
  let found = await findMigration(session, name!, options.text("side") as MigrationSide | undefined);
  if (found.kind === "at-rest" && action === "cancel") {
    found = { ...found, record: await finishCancel(session, found.record) };
  }
  const say = (text: string) => {
    if (!options.isGiven("json")) context.out(printable(text) + "\n");
  };
  if (found.kind !== "migrating") {
    if (options.isGiven("json")) context.out(JSON.stringify(migrationEndResult(found, "at-rest", [])) + "\n");
    say(
      found.kind === "past"
        ? `guest "${name}" does not run here any more; nothing is left of a migration`
        : `guest "${found.record.name}" is ${found.record.state} here and not migrating; nothing is left to do`,
    );
    return 0;
  }
  const { record } = found;
  const { outcome, state, holders } = await endMigration(session, record, { action, waitMs });
  if (options.isGiven("json")) {
    context.out(
      JSON.stringify(migrationEndResult({ ...found, record: { ...record, state } }, outcome, holders)) + "\n",
    );
  }
  const isOut = record.migration.role === "out";
  const guest = `guest "${record.name}"`;
  switch (outcome) {
    case "completed":
      say(isOut ? `${guest} has left; its locks here are free` : `${guest} has come and has all its locks`);
      return 0;
    case "cancelled":
      say(
        isOut
          ? `${guest} stays here and has all its locks`
          : `${guest} does not come; its locks here are free`,
      );
      return 0;
    case "waiting": {
      const who = holders.length === 0 ? "the source" : holdersText(holders);
      context.note(
        `${guest} has come and is safe with half of each lock; ${who} still has the other half: complete the migration there, then here again (or --wait here)`,
      );
      return 75;
    }
  }
}
