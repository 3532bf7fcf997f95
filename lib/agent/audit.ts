import type { Driver } from "../driver/contract.ts";
import { LockvisorError } from "../errors.ts";
import { actOnLostLocks, attachHost, type HostLock, type SettledGuest } from "../host_lock.ts";
import type { GuestRecord } from "../manager/guest_record.ts";
import { claimsOf, lostResources } from "../manager/lost_locks.ts";
import { migrationNotice } from "../manager/migration_plan.ts";
import { obstacleText } from "../manager/obstacle.ts";
import { mayProtect } from "../manager/protect_resources.ts";
import type { LostLockAction } from "../manager/settle_lost_locks.ts";
import { unprotectedResources, unprotectedText } from "../manager/unprotected.ts";
import type { EventResource, Happening } from "./event.ts";
import type { LockDoubts } from "./lock_doubts.ts";
import { eventGuest, eventResource, resourcesText } from "./record_changes.ts";

/** What an audit works with. */
export interface AuditContext {
  host: HostLock;
  /** The guests that run. */
  records(): readonly GuestRecord[];
  driverOf(plugin: string): Driver | undefined;
  doubts: LockDoubts;
  tell(happening: Happening): void;
}

/** What is known of a guest that has lost locks. */
interface Loss {
  /** Another loss is told, and acted on, anew. */
  resources: readonly EventResource[];
  /** Whether the action that its record asks for was carried out. */
  action: "due" | "under-way" | "done";
}

/** What one look has found. */
export interface AuditReport {
  guests: number;
  /** Guests that were looked at exactly. */
  examined: number;
  /** Guests that run without a lock that they should have. */
  lost: number;
}

/**
 * Compares what guests should have locked with the kernel's tables, has lost locks taken again that nobody had in
 * between, and does with a guest whose lock is lost what its record asks for: once for each loss.
 */
export class Audit {
  readonly #context: AuditContext;
  readonly #losses = new Map<string, Loss>();
  /** What was told of guests that cannot be dealt with: the same is not told again at each look. */
  readonly #problems = new Map<string, Set<string>>();

  constructor(context: AuditContext) {
    this.#context = context;
  }

  /** Guests that have lost locks, as far as it is known. */
  get lost(): number {
    return this.#losses.size;
  }

  /** One look at all guests. */
  async run(): Promise<AuditReport> {
    const { records, doubts } = this.#context;
    const all = records();
    this.#forgetAllBut(new Set(all.map(({ uuid }) => uuid)));
    const doubted = new Set(await doubts.of(all));
    for (const record of all) if (this.#losses.has(record.uuid)) doubted.add(record);
    // Whoever is acted on is looked at when that is done: a monitor that does not answer must keep nobody else waiting.
    for (const record of doubted) {
      if (this.#losses.get(record.uuid)?.action === "under-way") doubted.delete(record);
    }
    const bereft = new Map<string, readonly EventResource[]>();
    const well: GuestRecord[] = [];
    for (const [record, lost] of this.#lookAt([...doubted])) {
      if (lost.length > 0 || this.#losses.has(record.uuid)) bereft.set(record.uuid, lost);
      else well.push(record);
    }
    await doubts.settle(well);
    for (const record of this.#freed(all)) bereft.set(record.uuid, bereft.get(record.uuid) ?? []);
    if (bereft.size > 0) {
      for (const { settled } of await this.#attach(new Set(bereft.keys()), bereft)) {
        // Nobody waits for it, and a fault of our own with one guest must not end the agent.
        settled.catch((error) =>
          this.#context.tell({ type: "problem", message: `internal error: ${error}` })
        );
      }
    }
    return { guests: all.length, examined: doubted.size, lost: this.#losses.size };
  }

  /**
   * Attaches guests: mends what can be mended, tells what was, and acts on what cannot.
   * @param which UUIDs, or all guests of this host
   */
  async attach(which: ReadonlySet<string> | "all"): Promise<SettledGuest[]> {
    const guests = await this.#attach(which, new Map());
    return await Promise.all(guests.map(({ settled }) => settled));
  }

  /**
   * As {@linkcode attach}, but does not wait for what is done to guests that have lost locks.
   * @param lost what a look just before has found missing, by UUID
   */
  async #attach(
    which: ReadonlySet<string> | "all",
    lost: ReadonlyMap<string, readonly EventResource[]>,
  ): Promise<{ settled: Promise<SettledGuest> }[]> {
    const { host, tell } = this.#context;
    const problem = (error: LockvisorError) => tell({ type: "problem", message: error.message });
    const choose = <Candidate extends { uuid: string }>(all: Candidate[]) =>
      which === "all" ? all : all.filter(({ uuid }) => which.has(uuid));
    const guests = await attachHost(host, { choose, problem }, "leave");
    return guests.map((guest) => ({ settled: this.#judge(guest, lost.get(guest.record.uuid) ?? []) }));
  }

  /** What guests have lost. One question to each driver, for all of its guests. */
  #lookAt(records: readonly GuestRecord[]): [GuestRecord, readonly EventResource[]][] {
    return [...Map.groupBy(records, ({ plugin }) => plugin)].flatMap(([plugin, group]) => {
      const driver = this.#context.driverOf(plugin);
      if (driver === undefined) return [];
      const evidence = driver.evidence(group.flatMap(claimsOf));
      let at = 0;
      return group.map((record): [GuestRecord, readonly EventResource[]] => {
        const own = evidence.slice(at, at += record.carriers.length).flat();
        return [record, lostResources(record, own).map(eventResource)];
      });
    });
  }

  /** Guests that go without a lock that may be had now, or that somebody else has by now. */
  #freed(records: readonly GuestRecord[]): GuestRecord[] {
    return records.filter((record) => {
      if (unprotectedResources(record).length === 0) return false;
      const driver = this.#context.driverOf(record.plugin);
      return driver !== undefined && mayProtect(driver, record);
    });
  }

  async #judge(guest: SettledGuest, before: readonly EventResource[]): Promise<SettledGuest> {
    const { record, repairs, lost, fault } = guest;
    // That a guest is on its way, or goes without a lock, is told as an event of its own.
    const notice = record.migration === undefined ? undefined : migrationNotice(record.migration);
    const without = unprotectedResources(record).map(unprotectedText);
    const warnings = guest.warnings.filter((warning) => warning !== notice && !without.includes(warning));
    for (const repair of repairs) {
      const message = `guest "${record.name}": ${repair}`;
      this.#context.tell({ type: "guest-mended", guest: eventGuest(record), message });
    }
    for (const warning of warnings) this.#tellProblem(record, warning);
    if (fault !== undefined) this.#tellProblem(record, fault.message);
    const known = this.#losses.get(record.uuid);
    if (lost.length === 0) {
      if (fault !== undefined) return guest;
      if (warnings.length === 0) this.#problems.delete(record.uuid);
      // What nobody has mended was not lost: the guest was just giving it up when it was looked at.
      const isMended = before.length > 0 && repairs.length > 0;
      if (known !== undefined || isMended) this.#recovered(record, known?.resources ?? before);
      return guest;
    }
    const resources = lost.map(eventResource);
    const isKnown = known !== undefined && resourcesText(known.resources) === resourcesText(resources);
    const loss: Loss = isKnown ? known : { resources, action: "due" };
    this.#losses.set(record.uuid, loss);
    if (loss !== known) this.#tellLoss(guest);
    return loss.action === "due" ? await this.#act(guest, loss) : guest;
  }

  #forgetAllBut(uuids: ReadonlySet<string>): void {
    for (const known of [this.#losses, this.#problems]) {
      for (const uuid of known.keys()) if (!uuids.has(uuid)) known.delete(uuid);
    }
  }

  #recovered(record: GuestRecord, resources: readonly EventResource[]): void {
    this.#losses.delete(record.uuid);
    const what = resources.length === 0 ? "" : ` on ${resourcesText(resources)}`;
    const stays = record.state === "paused" ? `; it stays paused: lockvisor resume ${record.name}` : "";
    const message = `guest "${record.name}" has its locks${what} again${stays}`;
    this.#context.tell({ type: "lock-regained", guest: eventGuest(record), resources, message });
  }

  #tellProblem(record: GuestRecord, text: string): void {
    const told = this.#problems.get(record.uuid) ?? new Set();
    if (told.has(text)) return;
    this.#problems.set(record.uuid, told.add(text));
    const message = `guest "${record.name}": ${text}`;
    this.#context.tell({ type: "problem", guest: eventGuest(record), message });
  }

  #tellLoss({ record, lost, obstacle }: SettledGuest): void {
    const why = obstacle === undefined ? "" : `; ${obstacleText(obstacle)}`;
    const resources = lost.map(eventResource);
    this.#context.tell({
      type: "lock-lost",
      guest: eventGuest(record),
      resources,
      holder: holderOf(obstacle),
      message: `guest "${record.name}" runs without its locks on ${resourcesText(resources)}${why}`,
    });
  }

  /** Does what is due. What failed is due again at the next look. */
  async #act(guest: SettledGuest, loss: Loss): Promise<SettledGuest> {
    const { record } = guest;
    const action = ACTIONS[record.onLockFailure];
    loss.action = "under-way";
    try {
      const result = await actOnLostLocks(this.#context.host, guest, action);
      if (result === undefined) return guest; // it has ended
      if (result.lost.length === 0) {
        this.#recovered(result.record, guest.lost.map(eventResource));
        return result;
      }
      if (result.fault !== undefined) throw result.fault;
      loss.action = "done";
      const done = { left: "was left running", paused: "was paused", killed: "was killed" }[result.fate];
      this.#context.tell({
        type: "action-taken",
        guest: eventGuest(record),
        resources: result.lost.map(eventResource),
        message:
          `guest "${record.name}" ${done} for want of its locks (on-lock-failure: ${record.onLockFailure})`,
      });
      return result;
    } catch (error) {
      if (!(error instanceof LockvisorError)) throw error;
      this.#tellProblem(
        record,
        `${action} for want of its locks failed and is tried again: ${error.message}`,
      );
      return guest;
    } finally {
      if (loss.action === "under-way") loss.action = "due";
    }
  }
}

const ACTIONS: Record<GuestRecord["onLockFailure"], LostLockAction> = {
  pause: "pause",
  kill: "kill",
  ignore: "leave",
};

function holderOf(obstacle: SettledGuest["obstacle"]) {
  switch (obstacle?.why.outcome) {
    case "refused":
      return obstacle.why.holders[0] ?? null;
    case "changed":
      return obstacle.why.had;
    default:
      return null;
  }
}
