import { attachHost, type SettledGuest } from "../host_lock.ts";
import { exitStatusOf, LockvisorError, printable } from "../errors.ts";
import type { AttachCandidate, AttachedGuest } from "../manager/attach_guests.ts";
import { obstacleText } from "../manager/obstacle.ts";
import type { LostLockAction } from "../manager/settle_lost_locks.ts";
import { attachResult } from "../report/results.ts";
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
  const problems: LockvisorError[] = [];
  const guests: SettledGuest[] = await attachHost(
    session,
    { choose: (found) => chooseNamed(found, names), problem: (error) => problems.push(error) },
    action,
  );
  context.out(
    options.isGiven("json") ? JSON.stringify(attachResult(guests)) + "\n" : guests.map(attachedText).join(""),
  );
  for (const { message } of problems) context.note(message);
  for (const { record, warnings } of guests) {
    for (const warning of warnings) context.note(`warning: guest "${record.name}": ${printable(warning)}`);
  }
  for (const { record, fault } of guests) {
    if (fault === undefined) continue;
    problems.push(fault);
    context.note(printable(`guest "${record.name}": ${fault.message}`));
  }
  const unlocked = guests.filter(({ lost }) => lost.length > 0);
  for (const { record, lost, fate, obstacle } of unlocked) {
    const resources = lost.map(({ type, name }) => `${type} ${name}`).join(", ");
    const done = { left: "it was left as it is", paused: "it was paused", killed: "it was killed" }[fate];
    const why = obstacle === undefined ? "" : `; ${obstacleText(obstacle)}`;
    context.note(
      printable(
        `guest "${record.name}" (pid ${
          record.carriers[0].pid
        }) has lost its locks on ${resources}; ${done}${why}`,
      ),
    );
  }
  // Why what was wanted could not be done says more than that the locks are lost.
  const undone = unlocked.flatMap(({ fault }) => fault === undefined ? [] : [exitStatusOf(fault.code)]);
  if (undone.length > 0) return Math.max(...undone);
  if (unlocked.some(({ fate }) => fate !== "killed")) return exitStatusOf("locked");
  return Math.max(0, ...problems.map(({ code }) => exitStatusOf(code)));
}

/**
 * The guests of these names or UUIDs; all, when there is none.
 * @throws {LockvisorError} `data` for an unknown one, and for a name that is that of several guests
 */
function chooseNamed<Candidate extends AttachCandidate>(
  guests: Candidate[],
  names: readonly string[],
): Candidate[] {
  if (names.length === 0) return guests;
  return [...new Set(names.flatMap((name) => theOneNamed(guests, name)))];
}

/** A guest that migrates within this host is there twice. */
function theOneNamed<Candidate extends AttachCandidate>(
  guests: readonly Candidate[],
  asked: string,
): Candidate[] {
  const byUuid = guests.filter(({ uuid }) => uuid === asked.toLowerCase());
  const found = byUuid.length > 0 ? byUuid : guests.filter(({ name }) => name === asked);
  if (found.length === 0) {
    throw new LockvisorError("data", `no guest "${asked}" runs on this host; see: lockvisor status`);
  }
  const uuids = [...new Set(found.map(({ uuid }) => uuid))];
  if (uuids.length === 1) return found;
  throw new LockvisorError(
    "data",
    `"${asked}" is the name of ${uuids.length} guests (uuids ${
      uuids.join(" and ")
    }); say which one by its UUID`,
    { details: { uuids } },
  );
}

function attachedText({ record, repairs, lost, locked, fault }: AttachedGuest): string {
  if (fault !== undefined && lost.length === 0) return "";
  const locks = lost.length > 0
    ? `${lost.length} lost`
    : { true: "locked", false: "it takes no locks", null: "its locks are not shown here" }[`${locked}`];
  const line = `guest "${record.name}" (uuid ${record.uuid}) is process ${record.carriers[0].pid}: ${locks}`;
  return [line, ...repairs.map((repair) => `  ${repair}`)].map((text) => printable(text) + "\n").join("");
}
