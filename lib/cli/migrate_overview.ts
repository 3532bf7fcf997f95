import { LockvisorError, printable } from "../errors.ts";
import {
  endMigration,
  findMigration,
  type ObservedMigration,
  observeMigrations,
} from "../host_migrations.ts";
import { migrationResult } from "../report/results.ts";
import type { CliContext } from "./context.ts";
import type { Invocation } from "./parse.ts";
import { openSession } from "./session.ts";
import { formatTable, type TableCell } from "./table.ts";

/** `lockvisor migrate status`: the guests that are on their way, and what is left to do. */
export async function status(
  { options, arguments: [name] }: Invocation,
  context: CliContext,
): Promise<number> {
  const session = await openSession(options, context);
  const observed = (await observeMigrations(session)).filter(({ record }) =>
    name === undefined || record.name === name || record.uuid === name.toLowerCase()
  );
  // A guest that nobody knows is an error; one that is at rest is none.
  if (name !== undefined && observed.length === 0) await findMigration(session, name, undefined);
  context.out(
    options.isGiven("json")
      ? JSON.stringify({ migrations: observed.map(migrationResult) }) + "\n"
      : formatMigrations(observed, context),
  );
  return 0;
}

function formatMigrations(observed: readonly ObservedMigration[], context: CliContext): string {
  if (observed.length === 0) return "no migrations\n";
  const rows = observed.map(({ record, view, other, next }): TableCell[] => [
    printable(record.name),
    record.migration.role,
    String(record.carriers[0].pid),
    printable(record.migration.role === "out" ? record.migration.destination : record.migration.source.name),
    qemuText(view),
    other.held === null ? "?" : other.held ? "yes" : "no",
    { text: next.action, colour: next.action === "wait" ? "none" : "yellow" },
    printable(next.why),
  ]);
  const header = ["NAME", "SIDE", "PID", "OTHER SIDE", "QEMU", "IT HAS ITS HALF", "NEXT", "WHY"];
  return formatTable(header, rows, context.colours);
}

const RUN_WORDS = {
  running: "running",
  stopped: "stopped",
  switching: "switching over",
  awaiting: "inmigrate",
} as const;

function qemuText(view: ObservedMigration["view"]): string {
  if (view === undefined) return "does not answer";
  switch (view.kind) {
    case "ended":
      return "ended";
    case "silent":
      return "no monitor";
    case "seen":
      return view.sending === "completed" ? "has sent everything" : RUN_WORDS[view.run];
  }
}

/** `lockvisor migrate cleanup`: brings migrations that stopped half-way to their end. */
export async function cleanup({ options }: Invocation, context: CliContext): Promise<number> {
  const session = await openSession(options, context);
  const observed = await observeMigrations(session);
  const done: ReturnType<typeof doneResult>[] = [];
  let status = 0;
  for (const migration of observed) {
    const { record, next } = migration;
    const what = `guest "${record.name}" (${record.migration.role}): ${next.action}, since ${next.why}`;
    if (!options.isGiven("json")) context.out(printable(what) + "\n");
    if (next.action === "wait" || !isWanted(options, next.action)) {
      done.push(doneResult(migration, next.action === "wait" ? "waits" : "left"));
      continue;
    }
    try {
      const { outcome } = await endMigration(session, record, { action: next.action, waitMs: 0 });
      done.push(doneResult(migration, outcome));
      if (!options.isGiven("json")) context.out(printable(`guest "${record.name}": ${outcome}`) + "\n");
    } catch (error) {
      if (!(error instanceof LockvisorError)) throw error;
      done.push({ ...doneResult(migration, "failed"), ...error.toJSON() });
      context.note(error.message);
      status = 75;
    }
  }
  if (options.isGiven("json")) context.out(JSON.stringify({ migrations: done }) + "\n");
  else if (observed.length === 0) context.out("no migrations\n");
  return status;
}

function doneResult(migration: ObservedMigration, result: string) {
  return { ...migrationResult(migration), result };
}

/** With --yes everything; else whoever is at the terminal is asked, and nobody else. */
function isWanted(options: Invocation["options"], action: string): boolean {
  if (options.isGiven("yes")) return true;
  if (options.isGiven("json") || !Deno.stdin.isTerminal()) return false;
  return confirm(`${action} it now?`);
}
