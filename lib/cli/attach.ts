import { attachHost, type SettledGuest } from "../host_lock.ts";
import { exitStatusOf, LockvisorError, printable } from "../errors.ts";
import type { AttachedGuest } from "../manager/attach_guests.ts";
import { chooseGuest } from "../manager/find_guest.ts";
import type { LostLockAction } from "../manager/settle_lost_locks.ts";
import { lifeOf } from "../process/process_identity.ts";
import type { CliContext } from "./context.ts";
import type { Invocation } from "./parse.ts";
import { openSession } from "./session.ts";

/** `lockvisor attach`: finds the guests that run, mends their records, and tells which have lost a lock. */
export async function attach(
  { options, arguments: names }: Invocation,
  context: CliContext,
): Promise<number> {
  const action = (options.text("on-lost") ?? "leave") as LostLockAction;
  const session = await openSession(options, context);
  session.store.prepare(context.effectiveUid);
  const guests: SettledGuest[] = await attachHost(session, (found) => chooseNamed(found, names), action);
  context.out(options.isGiven("json") ? attachedJson(guests) : guests.map(attachedText).join(""));
  for (const { record, warnings } of guests) {
    for (const warning of warnings) context.note(`warning: guest "${record.name}": ${printable(warning)}`);
  }
  const unlocked = guests.filter(({ lost }) => lost.length > 0);
  for (const { record, lost, fate } of unlocked) {
    const resources = lost.map(({ type, name }) => `${type} ${name}`).join(", ");
    const done = { left: "it was left as it is", paused: "it was paused", killed: "it was killed" }[fate];
    context.note(
      printable(
        `guest "${record.name}" (pid ${record.carriers[0].pid}) has lost its locks on ${resources}; ${done}`,
      ),
    );
  }
  return unlocked.some(({ fate }) => fate !== "killed") ? exitStatusOf("locked") : 0;
}

/**
 * The guests of these names or UUIDs; all, when there is none.
 * @throws {LockvisorError} `data` for an unknown one, or when a name fits several
 */
function chooseNamed(guests: AttachedGuest[], names: readonly string[]): AttachedGuest[] {
  if (names.length === 0) return guests;
  const records = guests.map(({ record }) => record);
  const chosen = names.map((name) => {
    const record = chooseGuest(name, records, ({ carriers }) => lifeOf(carriers[0]));
    if (record !== undefined) return record;
    throw new LockvisorError("data", `no guest "${name}" runs on this host; see: lockvisor status`);
  });
  return guests.filter(({ record }) => chosen.includes(record));
}

function attachedText({ record, repairs, lost, locked }: AttachedGuest): string {
  const locks = lost.length > 0
    ? `${lost.length} lost`
    : { true: "locked", false: "it takes no locks", null: "its locks are not shown here" }[`${locked}`];
  const line = `guest "${record.name}" (uuid ${record.uuid}) is process ${record.carriers[0].pid}: ${locks}`;
  return [line, ...repairs.map((repair) => `  ${repair}`)].map((text) => printable(text) + "\n").join("");
}

function attachedJson(guests: readonly AttachedGuest[]): string {
  const shown = guests.map((
    { record: { uuid, name, state, carriers }, repairs, warnings, lost, locked },
  ) => ({
    uuid,
    name,
    state,
    pid: carriers[0].pid,
    carriers: carriers.map(({ kind, pid }) => ({ kind, pid })),
    locked,
    lost: lost.map(({ type, name, access }) => ({ type, name, access })),
    repairs,
    warnings,
  }));
  return JSON.stringify({ guests: shown }) + "\n";
}
