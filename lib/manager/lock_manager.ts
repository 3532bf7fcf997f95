import type {
  Driver,
  DriverCapabilities,
  DriverConfig,
  Forecast,
  Guest,
  ResolvedResource,
  ResourceType,
} from "../driver/contract.ts";
import type { IncomingGuest, MigrationTicket } from "../driver/migration.ts";
import type { Access } from "../access.ts";
import { LockvisorError } from "../errors.ts";
import type { ResourceSpec } from "../identity/resource.ts";
import { uuidOfName } from "../identity/key.ts";
import { setOnExec } from "../libc/exec.ts";
import { requireAbility } from "./abilities.ts";
import type { GuestRecord } from "./guest_record.ts";
import type { GuestStore } from "./guest_store.ts";
import type { HotplugReport } from "./hotplug_plan.ts";
import type { ArrivalOutcome } from "./migrate_in.ts";
import { type ManagerCall, type ManagerMode, type Phase, refuseOutOfOrder } from "./manager_phase.ts";
import { checkParameter, type Parameters } from "./parameters.ts";
import type { LocksWhilePaused } from "./pause_guest.ts";
import { resolveForRelease, resolveRegistered, type ResourceScope } from "./registered_resource.ts";
import { type Enforcement, takeForStart } from "./start_guest.ts";
import { supervisorArguments } from "./supervisor.ts";

/** A driver that is loaded, with what it declares and what it was given. */
export interface LoadedDriver {
  name: string;
  capabilities: DriverCapabilities;
  driver: Driver;
  config: DriverConfig;
}

/** What a manager needs beside its driver. */
export interface ManagerOptions {
  store: GuestStore;
  /** Where relative paths start; default: the current directory. */
  cwd?: string;
  /** What becomes of a guest when somebody else has what it wants; default: it is refused. */
  enforce?: Enforcement;
}

/** How a guest is prepared to leave. */
interface Departing {
  lifetimeMs: number;
  incomingGuest: IncomingGuest;
}

/** How long a ticket is good unless somebody says, in milliseconds: long enough to start the destination by hand. */
const TICKET_LIFETIME_MS = 600_000;

/** What ends when a manager is freed. */
export interface ManagerEnvironment extends ManagerOptions {
  mode: ManagerMode;
  onFree(): void;
}

/**
 * The lock manager of one guest, with the calls of libvirt's first design. For a guest that starts: say who it is,
 * register what it uses, acquire all of it at once. For one that runs: say who it is and attach. Calls out of order are
 * refused with an error that names call and state.
 */
export class LockManager implements AsyncDisposable {
  readonly #plugin: LoadedDriver;
  readonly #environment: ManagerEnvironment;
  readonly #parameters: Partial<Parameters> = {};
  readonly #resources: ResolvedResource[] = [];
  #phase: Phase = { phase: "open" };

  constructor(plugin: LoadedDriver, environment: ManagerEnvironment) {
    this.#plugin = plugin;
    this.#environment = environment;
  }

  /** Says something about the guest; each parameter once. @throws {LockvisorError} `usage` */
  setParameter<Name extends keyof Parameters>(name: Name, value: Parameters[Name]): void {
    this.#enter("setParameter");
    const checked = checkParameter(name, value);
    if (this.#parameters[name] !== undefined) {
      throw new LockvisorError("usage", `setParameter: parameter "${name}" is set already`);
    }
    this.#parameters[name] = checked;
  }

  /**
   * Names a disk or a lease that the guest uses. Finding out what it really is happens here. A driver that leases whole
   * guests may ignore it; it is kept in the record all the same.
   * @param naming who named it: `followed` for what was found in QEMU's options and nobody has stated
   * @throws {LockvisorError} `data` or `permission` for a disk that is not there, is no disk, or may not be read
   */
  registerResource(
    type: ResourceType,
    name: string,
    access: Access,
    naming: "stated" | "followed" = "stated",
  ): void {
    this.#enter("registerResource");
    const spec = { type, name, access, ...(naming === "followed" ? { followed: true as const } : {}) };
    this.#resources.push(resolveRegistered("registerResource", spec, this.#scope()));
  }

  /** What acquireObject would meet now. Takes nothing and writes nothing. */
  forecast(): Forecast[] {
    this.#enter("forecast");
    return this.#plugin.driver.forecast(this.#guest(), this.#resources);
  }

  /**
   * Takes every lock of the guest, or none, and writes the guest's record. The locks are in this process then.
   * May be called again after it was refused. With `warn` it takes what is free, and warns of the rest.
   * @param enforce default: as the manager was told when it was made
   * @throws {LockvisorError} `locked` with the holder's name
   */
  async acquireObject(enforce: Enforcement = this.#environment.enforce ?? "refuse"): Promise<void> {
    this.#enter("acquireObject");
    const guest = this.#guest();
    this.#environment.store.prepare(this.#plugin.config.effectiveUid);
    if (this.#environment.mode === "migrate") return await this.#acquireIncoming(guest);
    await this.#during(async (become) => {
      const taken = await takeForStart(
        {
          ...this.#context(),
          command: this.#parameters.command ?? [],
          enforce,
          warn: this.#plugin.config.warn,
        },
        guest,
        this.#resources,
      );
      become({ phase: "acquired", ...taken });
    });
  }

  async #acquireIncoming(guest: Guest): Promise<void> {
    const { ticket, command = [] } = this.#parameters;
    if (ticket === undefined) {
      throw new LockvisorError("usage", `acquireObject: by which ticket? set the parameter "ticket"`);
    }
    if (guest.uuid !== ticket.guest.uuid) {
      throw new LockvisorError(
        "data",
        `the ticket is for guest "${ticket.guest.name}" (uuid ${ticket.guest.uuid}), not for guest "${guest.name}" (uuid ${guest.uuid})`,
      );
    }
    const { resolveForTicket, takeForIncoming } = await import("./migrating_guest.ts");
    await this.#during(async (become) => {
      const resources = resolveForTicket(ticket, this.#resources, this.#scope());
      const taken = await takeForIncoming({ ...this.#context(), command }, { guest, ticket }, resources);
      become({ phase: "acquired", ...taken });
    });
  }

  /** Makes the locks survive an exec of this process: the guest's program will hold them. */
  handOver(): void {
    this.#enter("handOver");
    if (this.#phase.phase !== "acquired") return;
    for (const { slots } of this.#phase.hold.locks) {
      for (const descriptor of Object.values(slots)) setOnExec(descriptor, "kept");
    }
    for (const descriptor of this.#phase.hold.unlocked ?? []) setOnExec(descriptor, "kept");
  }

  /**
   * Finds a guest that runs, by its uuid or name. Where its record is lost or tells of a process that has ended, it is
   * looked for with the kernel, and its record is made right. In mode `migrate`: a guest that comes in.
   * @throws {LockvisorError} `data` when it does not run on this host
   */
  async attach(): Promise<void> {
    this.#enter("attach");
    const { uuid, name } = this.#parameters;
    const wanted = uuid ?? name;
    if (wanted === undefined) {
      throw new LockvisorError("usage", `attach: the guest has no name; set the parameter "name" or "uuid"`);
    }
    if (this.#environment.mode === "migrate") {
      const { attachIncoming } = await import("./migrating_guest.ts");
      this.#phase = { phase: "attached", record: attachIncoming(this.#context(), wanted) };
      return;
    }
    const { attachGuest } = await import("./attached_guest.ts");
    await this.#during(async (become) => {
      become({ phase: "attached", record: await attachGuest(this.#context(), wanted, name) });
    });
  }

  /**
   * Makes a guest of the process that the parameter `pid` names and that runs already: takes the locks of what is
   * registered, all or none. Again for the same guest and process it locks what is new.
   * @returns what was done about each resource
   * @throws {LockvisorError} `locked` with the holder's name, `data` or `permission` for a process that cannot be adopted
   */
  async adoptObject(): Promise<HotplugReport> {
    this.#enter("adoptObject");
    const guest = this.#guest();
    const { pid } = this.#parameters;
    if (pid === undefined) {
      throw new LockvisorError("usage", `adoptObject: which process? set the parameter "pid"`);
    }
    requireAbility(this.#plugin, "hotplug", `adopt process ${pid}`);
    this.#environment.store.prepare(this.#plugin.config.effectiveUid);
    const { adoptProcess } = await import("./attached_guest.ts");
    return await this.#during(async (become) => {
      const { report, record } = await adoptProcess(this.#context(), { guest, pid }, this.#resources);
      become({ phase: "attached", record });
      return report;
    });
  }

  /** The pid of the guest's process; our own for one that starts, since we become the guest. */
  child(): number {
    return this.#record("child").carriers[0].pid;
  }

  /** What is written down about the guest. */
  record(): GuestRecord {
    return this.#record("record");
  }

  /** Locks one resource for the guest that runs, before it is plugged in; as {@linkcode acquireResources}. */
  acquireResource(type: ResourceType, name: string, access: Access): Promise<HotplugReport> {
    return this.acquireResources([{ type, name, access }]);
  }

  /**
   * Locks resources for the guest that runs, all or none. What it has already with the same access needs nothing.
   * @throws {LockvisorError} `locked` with the holder's name, `data` for a disk that it has with another access
   */
  async acquireResources(specs: readonly ResourceSpec[]): Promise<HotplugReport> {
    const record = this.#record("acquireResource");
    requireAbility(this.#plugin, "hotplug", `lock more for guest "${record.name}"`);
    const resources = specs.map((spec) => resolveRegistered("acquireResource", spec, this.#scope()));
    return await this.#during(async (become) => {
      const { plugResources } = await import("./attached_guest.ts");
      const plugged = await plugResources(this.#context(), record, resources);
      become({ phase: "attached", record: plugged.record });
      return plugged.report;
    });
  }

  /** Gives one resource of the guest that runs up, after it was unplugged; as {@linkcode releaseResources}. */
  releaseResource(type: ResourceType, name: string, access: Access): Promise<HotplugReport> {
    return this.releaseResources([{ type, name, access }]);
  }

  /** Gives resources up. What the guest does not hold is a warning in the report and no failure. */
  async releaseResources(specs: readonly ResourceSpec[]): Promise<HotplugReport> {
    const record = this.#record("releaseResource");
    requireAbility(this.#plugin, "hotplug", `release locks of guest "${record.name}"`);
    const resources = specs.map((spec) => resolveForRelease(spec, this.#scope()));
    return await this.#during(async (become) => {
      const { unplugResources } = await import("./attached_guest.ts");
      const unplugged = await unplugResources(this.#context(), record, resources);
      become({ phase: "attached", record: unplugged.record });
      return unplugged.report;
    });
  }

  /**
   * Gives the guest that runs another access to resources that it has, all or none, without letting go of them: weaker
   * before others are let in, stronger before it writes. What it has with that access already needs nothing.
   * @throws {LockvisorError} `locked` with the holders' names where it gets stronger; `data` for what the guest does not
   * have, has lost or has given up while it is paused, or whose name means another disk by now
   */
  async changeAccess(specs: readonly ResourceSpec[]): Promise<HotplugReport> {
    const record = this.#record("changeAccess");
    requireAbility(this.#plugin, "hotplug", `change the access of guest "${record.name}"`);
    const resources = specs.map((spec) => resolveRegistered("changeAccess", spec, this.#scope()));
    return await this.#during(async (become) => {
      const { changeAccess } = await import("./attached_guest.ts");
      const changed = await changeAccess(this.#context(), record, resources);
      become({ phase: "attached", record: changed.record });
      return changed.report;
    });
  }

  /**
   * Stops the guest's processors, where it has a monitor, and notes that it is paused. It keeps its locks, or with
   * `released` gives up all but the lease on itself.
   * @returns the state of what was given up, for {@linkcode resume}
   */
  async pause(locks: LocksWhilePaused): Promise<string> {
    const record = this.#record("pause");
    requireAbility(this.#plugin, "pause", `pause guest "${record.name}"`);
    return await this.#during(async (become) => {
      const { formatState, pauseGuest } = await import("./attached_guest.ts");
      const paused = await pauseGuest(this.#context(), record, locks);
      become({ phase: "attached", record: paused });
      return formatState(paused);
    });
  }

  /**
   * Takes back what a paused guest gave up, then lets it run on.
   * @param options.state what `pause` gave, where the record may be older; default: what the record tells
   * @param options.changes whether it may go on although somebody else had one of its disks in between
   * @throws {LockvisorError} `locked` when somebody has or had one of its disks; it stays paused then
   */
  async resume({ changes, state }: { changes: "refuse" | "accept"; state?: string }): Promise<void> {
    const record = this.#record("resume");
    requireAbility(this.#plugin, "pause", `resume guest "${record.name}"`);
    await this.#during(async (become) => {
      const { resumeGuest } = await import("./attached_guest.ts");
      const resumed = await resumeGuest(this.#context(), record, { changes, state });
      become({ phase: "attached", record: resumed });
    });
  }

  /** The state of the guest's locks as text, those that a pause has given up included: keys, modes, generations. */
  async inquire(): Promise<string> {
    const record = this.#record("inquire");
    requireAbility(this.#plugin, "pause", `tell the state of the locks of guest "${record.name}"`);
    return await this.#during(async () => {
      const { inquireGuest } = await import("./attached_guest.ts");
      return await inquireGuest(this.#context(), record);
    });
  }

  /**
   * Prepares the guest to leave for another host: whoever has the ticket may come in there. Again: with a new ticket.
   * @param hostUri where it goes to
   * @param options.lifetimeMs how long the ticket is good, in milliseconds
   * @throws {LockvisorError} `locked` when somebody has come in by an earlier ticket
   */
  async prepareMigrate(
    hostUri: string,
    { lifetimeMs = TICKET_LIFETIME_MS, incomingGuest = "unwatched" }: Partial<Departing> = {},
  ): Promise<MigrationTicket> {
    const record = this.#migrating("prepareMigrate", `migrate to ${hostUri}`);
    const uri = checkParameter("uri", hostUri);
    return await this.#during(async (become) => {
      const { prepareGuest } = await import("./migrating_guest.ts");
      const destination = { uri, lifetimeMs, incomingGuest, scope: this.#scope() };
      const prepared = await prepareGuest(this.#context(), record, destination);
      become({ phase: "attached", record: prepared.record });
      return prepared.ticket;
    });
  }

  /** Notes that whoever drives the migration lets the guest run at the destination: this side never goes back then. */
  async noteIncomingGuest(incomingGuest: IncomingGuest): Promise<void> {
    const record = this.#migrating("noteIncomingGuest", "let a guest run at its destination");
    await this.#during(async (become) => {
      const { noteIncomingGuest } = await import("./migrating_guest.ts");
      become({ phase: "attached", record: await noteIncomingGuest(this.#context(), record, incomingGuest) });
    });
  }

  /**
   * Ends a migration on the side that the guest leaves: it has left, and its process here is ended; or, with `cancel`, it
   * stays, has its locks back and runs on. May be repeated, before or after the other side's.
   * @throws {LockvisorError} `locked` while the guest runs here, or while the destination lives; `data` when it cannot go
   * back
   */
  async completeMigrateOut({ cancel }: { cancel: boolean }): Promise<void> {
    const record = this.#migrating("completeMigrateOut", `${cancel ? "cancel" : "complete"} a migration`);
    await this.#during(async (become) => {
      const { cancelOut, completeOut } = await import("./migrating_guest.ts");
      if (cancel) return become({ phase: "attached", record: await cancelOut(this.#context(), record) });
      await completeOut(this.#context(), record);
      become({ phase: "shut-down" });
    });
  }

  /**
   * Ends a migration on the side that the guest comes to: it has come, and gets the source's half of its locks; or, with
   * `cancel`, it does not come, and its process here is ended. May be repeated, before or after the other side's.
   * @param options.waitMs how long to wait for the source to let go, in milliseconds
   * @returns `waiting` while the source has its half: the guest is safe with its own, and this is to be done again
   */
  async completeMigrateIn(
    { cancel, waitMs = 0 }: { cancel: boolean; waitMs?: number },
  ): Promise<"cancelled" | ArrivalOutcome> {
    const phase = this.#phase;
    const record = this.#migrating("completeMigrateIn", `${cancel ? "cancel" : "complete"} a migration`);
    return await this.#during(async (become) => {
      const { cancelIn, completeIn } = await import("./migrating_guest.ts");
      if (cancel) {
        if (phase.phase === "acquired") this.#giveBack(phase);
        else await cancelIn(this.#context(), record);
        become({ phase: "shut-down" });
        return "cancelled";
      }
      const arrival = await completeIn(this.#context(), record, { waitMs });
      become(
        phase.phase === "acquired"
          ? { ...phase, record: arrival.record }
          : { phase: "attached", record: arrival.record },
      );
      return arrival;
    });
  }

  /** The program that a management tool puts before the guest's command: this one. */
  supervisorPath(): string {
    this.#enter("supervisorPath");
    return Deno.execPath();
  }

  /** The arguments of that program, up to and with the `--` before the guest's command. */
  supervisorArgs(): string[] {
    this.#enter("supervisorArgs");
    const { name: plugin, config } = this.#plugin;
    const { enforce = "refuse", store: { runtimeDir } } = this.#environment;
    return supervisorArguments({
      mode: this.#environment.mode,
      ticket: this.#parameters.ticket,
      plugin,
      config,
      runtimeDir,
      enforce,
      guest: this.#guest(),
      resources: this.#resources,
    });
  }

  /**
   * The guest did not start, or has ended: gives its locks back, proves with the kernel that they are free, and takes
   * its record away.
   * @throws {LockvisorError} `locked` while the guest runs, or when a process that inherited its locks has them
   */
  async shutdown(): Promise<void> {
    this.#enter("shutdown");
    const phase = this.#phase;
    await this.#during(async (become) => {
      if (phase.phase === "acquired") {
        this.#giveBack(phase);
      } else if (phase.phase === "attached") {
        const { endGuest } = await import("./attached_guest.ts");
        await endGuest(this.#context(), phase.record);
      }
      become({ phase: "shut-down" });
    });
  }

  /** Ends the manager. Locks that are still in this process are given back; a guest that runs keeps its own. */
  free(): void {
    this.#enter("free");
    if (this.#phase.phase === "acquired") this.#giveBack(this.#phase);
    this.#phase = { phase: "freed" };
    this.#environment.onFree();
  }

  [Symbol.asyncDispose](): Promise<void> {
    if (this.#phase.phase !== "freed") this.free();
    return Promise.resolve();
  }

  #giveBack({ hold, record }: Extract<Phase, { phase: "acquired" }>): void {
    this.#environment.store.remove(record);
    hold.giveBack();
  }

  /**
   * Carries out a call that takes time. Until its end no other call is possible, and it ends in the phase that it
   * became; if it fails, in the one before.
   */
  async #during<Result>(step: (become: (phase: Phase) => void) => Promise<Result>): Promise<Result> {
    let next = this.#phase;
    this.#phase = { phase: "busy" };
    try {
      return await step((phase) => next = phase);
    } finally {
      this.#phase = next;
    }
  }

  #enter(call: ManagerCall): void {
    refuseOutOfOrder(call, this.#environment.mode, this.#phase.phase);
  }

  /** The record of a guest that is acquired or attached. */
  #record(call: ManagerCall): GuestRecord {
    this.#enter(call);
    if (this.#phase.phase === "acquired" || this.#phase.phase === "attached") return this.#phase.record;
    throw new LockvisorError("internal", `${call}: the manager has no guest`);
  }

  /** The record of a guest that may migrate. */
  #migrating(call: ManagerCall, action: string): GuestRecord {
    this.#enter(call);
    requireAbility(this.#plugin, "migration", action);
    return this.#record(call);
  }

  #context() {
    const { driver, name: plugin, config } = this.#plugin;
    const { store, enforce } = this.#environment;
    return { store, driver, plugin, hostId: config.host.id, enforce };
  }

  #guest(): Guest {
    const { name, uuid, id, qmp } = this.#parameters;
    if (name === undefined) {
      throw new LockvisorError("usage", `the guest has no name; set the parameter "name"`);
    }
    return {
      name,
      uuid: uuid ?? uuidOfName(name),
      id: id ?? null,
      qmp: qmp ?? null,
      onLockFailure: this.#parameters["on-lock-failure"] ?? "pause",
    };
  }

  #scope(): ResourceScope {
    return { config: this.#plugin.config, cwd: this.#environment.cwd };
  }
}
