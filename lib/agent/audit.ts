import type { Driver } from "../driver/contract.ts";
import { LockvisorError } from "../errors.ts";
import { actOnLostLocks, attachHost, type HostLock, type SettledGuest } from "../host_lock.ts";
import type { GuestRecord } from "../manager/guest_record.ts";
import { claimsOf, lostResources } from "../manager/lost_locks.ts";
import { obstacleText } from "../manager/obstacle.ts";
import type { LostLockAction } from "../manager/settle_lost_locks.ts";
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
  /** The resources, as one text: another loss is told, and acted on, anew. */
  what: string;
  /** Whether the action that its record asks for was carried out. */
  action: "due" | "done";
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
    for (const uuid of this.#losses.keys()) {
      if (!all.some((record) => record.uuid === uuid)) this.#losses.delete(uuid);
    }
    const doubted = new Set(await doubts.of(all));
    for (const record of all) if (this.#losses.has(record.uuid)) doubted.add(record);
    const bereft = new Map<string, readonly EventResource[]>();
    const well: GuestRecord[] = [];
    for (const [record, lost] of this.#lookAt([...doubted])) {
      if (lost.length > 0 || this.#losses.has(record.uuid)) bereft.set(record.uuid, lost);
      else well.push(record);
    }
    await doubts.settle(well);
    if (bereft.size > 0) await this.attach(new Set(bereft.keys()), bereft);
    return { guests: all.length, examined: doubted.size, lost: this.#losses.size };
  }

  /**
   * Attaches guests: mends what can be mended, tells what was, and acts on what cannot.
   * @param which UUIDs, or all guests of this host
   * @param lost what a look just before has found missing, by UUID
   */
  async attach(
    which: ReadonlySet<string> | "all",
    lost: ReadonlyMap<string, readonly EventResource[]> = new Map(),
  ): Promise<SettledGuest[]> {
    const { host, tell } = this.#context;
    const problem = (error: LockvisorError) => tell({ type: "problem", message: error.message });
    const choose = <Candidate extends { uuid: string }>(all: Candidate[]) =>
      which === "all" ? all : all.filter(({ uuid }) => which.has(uuid));
    const guests = await attachHost(host, { choose, problem }, "leave");
    const settled: SettledGuest[] = [];
    for (const guest of guests) settled.push(await this.#judge(guest, lost.get(guest.record.uuid) ?? []));
    return settled;
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

  async #judge(guest: SettledGuest, before: readonly EventResource[]): Promise<SettledGuest> {
    const { record, repairs, warnings, lost, fault } = guest;
    for (const repair of repairs) {
      const message = `guest "${record.name}": ${repair}`;
      this.#context.tell({ type: "guest-mended", guest: eventGuest(record), message });
    }
    for (const warning of warnings) this.#tellProblem(record, warning);
    if (fault !== undefined) this.#tellProblem(record, fault.message);
    const known = this.#losses.get(record.uuid);
    if (lost.length === 0) {
      if (fault === undefined && (known !== undefined || before.length > 0)) this.#recovered(record, before);
      return guest;
    }
    const what = resourcesText(lost.map(eventResource));
    const loss: Loss = known?.what === what ? known : { what, action: "due" };
    this.#losses.set(record.uuid, loss);
    if (loss !== known) this.#tellLoss(guest);
    return loss.action === "done" ? guest : await this.#act(guest, loss);
  }

  #recovered(record: GuestRecord, resources: readonly EventResource[]): void {
    this.#losses.delete(record.uuid);
    const what = resources.length === 0 ? "" : ` on ${resourcesText(resources)}`;
    const message = `guest "${record.name}" has its locks${what} again`;
    this.#context.tell({ type: "lock-regained", guest: eventGuest(record), resources, message });
  }

  #tellProblem(record: GuestRecord, text: string): void {
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
    try {
      const result = await actOnLostLocks(this.#context.host, guest, action);
      if (result === undefined) return guest; // it has ended
      if (result.lost.length === 0) {
        this.#recovered(result.record, guest.lost.map(eventResource));
        return result;
      }
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
