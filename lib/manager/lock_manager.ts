import type { Access } from "../access.ts";
import type { Forecast, ResourceType } from "../driver/contract.ts";
import type { IncomingGuest, MigrationTicket } from "../driver/migration.ts";
import { LockvisorError } from "../errors.ts";
import type { ResourceSpec } from "../identity/resource.ts";
import { setOnExec } from "../libc/exec.ts";
import type { GuestRecord } from "./guest_record.ts";
import type { HotplugReport } from "./hotplug_plan.ts";
import { giveBack, type LoadedDriver, type ManagerEnvironment, ManagerState } from "./manager_state.ts";
import type { ArrivalOutcome } from "./migrate_in.ts";
import type { Departing } from "./migration_calls.ts";
import { checkParameter, type Parameters } from "./parameters.ts";
import type { LocksWhilePaused } from "./pause_guest.ts";
import { resolveRegistered } from "./registered_resource.ts";
import { type Enforcement, takeForStart } from "./start_guest.ts";
import { supervisorArguments } from "./supervisor.ts";

export type { LoadedDriver, ManagerOptions } from "./manager_state.ts";

// How the calls about a guest that runs or moves are carried out is read when one is made: a start needs none of it.
const running = () => import("./attached_calls.ts");
const moving = () => import("./migration_calls.ts");

/**
 * The lock manager of one guest, with the calls of libvirt's first design. For a guest that starts: say who it is,
 * register what it uses, acquire all of it at once. For one that runs: say who it is and attach. Calls out of order are
 * refused with an error that names call and state.
 */
export class LockManager implements AsyncDisposable {
  readonly #state: ManagerState;

  constructor(plugin: LoadedDriver, environment: ManagerEnvironment) {
    this.#state = new ManagerState(plugin, environment);
  }

  /** Says something about the guest; each parameter once. @throws {LockvisorError} `usage` */
  setParameter<Name extends keyof Parameters>(name: Name, value: Parameters[Name]): void {
    this.#state.enter("setParameter");
    const checked = checkParameter(name, value);
    if (this.#state.parameters[name] !== undefined) {
      throw new LockvisorError("usage", `setParameter: parameter "${name}" is set already`);
    }
    this.#state.parameters[name] = checked;
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
    this.#state.enter("registerResource");
    const spec = { type, name, access, ...(naming === "followed" ? { followed: true as const } : {}) };
    this.#state.resources.push(resolveRegistered("registerResource", spec, this.#state.scope()));
  }

  /** What acquireObject would meet now. Takes nothing and writes nothing. */
  forecast(): Forecast[] {
    this.#state.enter("forecast");
    return this.#state.plugin.driver.forecast(this.#state.guest(), this.#state.resources);
  }

  /**
   * Takes every lock of the guest, or none, and writes the guest's record. The locks are in this process then.
   * May be called again after it was refused. With `warn` it takes what is free, and warns of the rest.
   * @param enforce default: as the manager was told when it was made
   * @throws {LockvisorError} `locked` with the holder's name
   */
  async acquireObject(enforce: Enforcement = this.#state.environment.enforce ?? "refuse"): Promise<void> {
    this.#state.enter("acquireObject");
    const guest = this.#state.guest();
    const { environment: { store, mode }, plugin: { config }, parameters, resources } = this.#state;
    const { command = [], ticket } = parameters;
    store.prepare(config.effectiveUid);
    await this.#state.during(async (become) => {
      const context = { ...this.#state.context(), command };
      const taken = mode === "migrate"
        ? await (await moving()).acquireIncoming(context, { guest, ticket }, resources, this.#state.scope())
        : await takeForStart({ ...context, enforce, warn: config.warn }, guest, resources);
      become({ phase: "acquired", ...taken });
    });
  }

  /** Makes the locks survive an exec of this process: the guest's program will hold them. */
  handOver(): void {
    this.#state.enter("handOver");
    const { phase } = this.#state;
    if (phase.phase !== "acquired") return;
    const { locks, unlocked = [] } = phase.hold;
    for (const { slots } of locks) {
      for (const descriptor of Object.values(slots)) setOnExec(descriptor, "kept");
    }
    for (const descriptor of unlocked) setOnExec(descriptor, "kept");
  }

  /**
   * Finds a guest that runs, by its uuid or name. Where its record is lost or tells of a process that has ended, it is
   * looked for with the kernel, and its record is made right. In mode `migrate`: a guest that comes in.
   * @throws {LockvisorError} `data` when it does not run on this host
   */
  async attach(): Promise<void> {
    this.#state.enter("attach");
    const { environment: { mode }, parameters } = this.#state;
    await this.#state.during(async (become) => {
      const { attach } = await (mode === "migrate" ? moving() : running());
      become({ phase: "attached", record: await attach(this.#state.context(), parameters) });
    });
  }

  /**
   * Makes a guest of the process that the parameter `pid` names and that runs already: takes the locks of what is
   * registered, all or none. Again for the same guest and process it locks what is new.
   * @returns what was done about each resource
   * @throws {LockvisorError} `locked` with the holder's name, `data` or `permission` for a process that cannot be adopted
   */
  async adoptObject(): Promise<HotplugReport> {
    this.#state.enter("adoptObject");
    const guest = this.#state.guest();
    const { plugin, parameters: { pid }, resources } = this.#state;
    return await this.#state.during(async (become) => {
      const call = { plugin, context: this.#state.context() };
      const { report, record } = await (await running()).adoptObject(call, { guest, pid }, resources);
      become({ phase: "attached", record });
      return report;
    });
  }

  /** The pid of the guest's process; our own for one that starts, since we become the guest. */
  child(): number {
    return this.#state.record("child").carriers[0].pid;
  }

  /** What is written down about the guest. */
  record(): GuestRecord {
    return this.#state.record("record");
  }

  /** Locks one resource for the guest that runs, before it is plugged in; as {@linkcode acquireResources}. */
  acquireResource(type: ResourceType, name: string, access: Access): Promise<HotplugReport> {
    return this.acquireResources([{ type, name, access }]);
  }

  /**
   * Locks resources for the guest that runs, all or none. What it has already with the same access needs nothing.
   * @throws {LockvisorError} `locked` with the holder's name, `data` for a disk that it has with another access
   */
  acquireResources(specs: readonly ResourceSpec[]): Promise<HotplugReport> {
    return this.#state.onGuest(
      "acquireResource",
      async (guest) => (await running()).acquireResources(guest, specs),
    );
  }

  /** Gives one resource of the guest that runs up, after it was unplugged; as {@linkcode releaseResources}. */
  releaseResource(type: ResourceType, name: string, access: Access): Promise<HotplugReport> {
    return this.releaseResources([{ type, name, access }]);
  }

  /** Gives resources up. What the guest does not hold is a warning in the report and no failure. */
  releaseResources(specs: readonly ResourceSpec[]): Promise<HotplugReport> {
    return this.#state.onGuest(
      "releaseResource",
      async (guest) => (await running()).releaseResources(guest, specs),
    );
  }

  /**
   * Gives the guest that runs another access to resources that it has, all or none, without letting go of them: weaker
   * before others are let in, stronger before it writes. What it has with that access already needs nothing.
   * @throws {LockvisorError} `locked` with the holders' names where it gets stronger; `data` for what the guest does not
   * have, has lost or has given up while it is paused, or whose name means another disk by now
   */
  changeAccess(specs: readonly ResourceSpec[]): Promise<HotplugReport> {
    return this.#state.onGuest("changeAccess", async (guest) => (await running()).changeAccess(guest, specs));
  }

  /**
   * Stops the guest's processors, where it has a monitor, and notes that it is paused. It keeps its locks, or with
   * `released` gives up all but the lease on itself.
   * @returns the state of what was given up, for {@linkcode resume}
   */
  pause(locks: LocksWhilePaused): Promise<string> {
    return this.#state.onGuest("pause", async (guest) => (await running()).pause(guest, locks));
  }

  /**
   * Takes back what a paused guest gave up, then lets it run on.
   * @param options.state what `pause` gave, where the record may be older; default: what the record tells
   * @param options.changes whether it may go on although somebody else had one of its disks in between
   * @throws {LockvisorError} `locked` when somebody has or had one of its disks; it stays paused then
   */
  resume(options: { changes: "refuse" | "accept"; state?: string }): Promise<void> {
    return this.#state.onGuest("resume", async (guest) => (await running()).resume(guest, options));
  }

  /** The state of the guest's locks as text, those that a pause has given up included: keys, modes, generations. */
  inquire(): Promise<string> {
    return this.#state.onGuest("inquire", async (guest) => (await running()).inquire(guest));
  }

  /**
   * Prepares the guest to leave for another host: whoever has the ticket may come in there. Again: with a new ticket.
   * @param hostUri where it goes to
   * @param options.lifetimeMs how long the ticket is good, in milliseconds
   * @throws {LockvisorError} `locked` when somebody has come in by an earlier ticket
   */
  prepareMigrate(hostUri: string, options: Partial<Departing> = {}): Promise<MigrationTicket> {
    return this.#state.onGuest(
      "prepareMigrate",
      async (guest) => (await moving()).prepareMigrate(guest, hostUri, options),
    );
  }

  /** Notes that whoever drives the migration lets the guest run at the destination: this side never goes back then. */
  noteIncomingGuest(incomingGuest: IncomingGuest): Promise<void> {
    return this.#state.onGuest(
      "noteIncomingGuest",
      async (guest) => (await moving()).noteIncomingGuest(guest, incomingGuest),
    );
  }

  /**
   * Ends a migration on the side that the guest leaves: it has left, and its process here is ended; or, with `cancel`, it
   * stays, has its locks back and runs on. May be repeated, before or after the other side's.
   * @throws {LockvisorError} `locked` while the guest runs here, or while the destination lives; `data` when it cannot go
   * back
   */
  completeMigrateOut(options: { cancel: boolean }): Promise<void> {
    return this.#state.onGuest(
      "completeMigrateOut",
      async (guest) => (await moving()).completeMigrateOut(guest, options),
    );
  }

  /**
   * Ends a migration on the side that the guest comes to: it has come, and gets the source's half of its locks; or, with
   * `cancel`, it does not come, and its process here is ended. May be repeated, before or after the other side's.
   * @param options.waitMs how long to wait for the source to let go, in milliseconds
   * @returns `waiting` while the source has its half: the guest is safe with its own, and this is to be done again
   */
  completeMigrateIn(options: { cancel: boolean; waitMs?: number }): Promise<"cancelled" | ArrivalOutcome> {
    return this.#state.onGuest(
      "completeMigrateIn",
      async (guest) => (await moving()).completeMigrateIn(guest, options),
    );
  }

  /** The program that a management tool puts before the guest's command: this one. */
  supervisorPath(): string {
    this.#state.enter("supervisorPath");
    return Deno.execPath();
  }

  /** The arguments of that program, up to and with the `--` before the guest's command. */
  supervisorArgs(): string[] {
    this.#state.enter("supervisorArgs");
    const { plugin: { name: plugin, config }, environment, parameters: { ticket }, resources } = this.#state;
    const { mode, enforce = "refuse", store: { runtimeDir } } = environment;
    const guest = this.#state.guest();
    return supervisorArguments({ mode, ticket, plugin, config, runtimeDir, enforce, guest, resources });
  }

  /**
   * The guest did not start, or has ended: gives its locks back, proves with the kernel that they are free, and takes
   * its record away.
   * @throws {LockvisorError} `locked` while the guest runs, or when a process that inherited its locks has them
   */
  async shutdown(): Promise<void> {
    this.#state.enter("shutdown");
    const { environment, phase } = this.#state;
    await this.#state.during(async (become) => {
      if (phase.phase === "acquired") giveBack(environment, phase);
      if (phase.phase === "attached") await (await running()).endGuest(this.#state.context(), phase.record);
      become({ phase: "shut-down" });
    });
  }

  /** Ends the manager. Locks that are still in this process are given back; a guest that runs keeps its own. */
  free(): void {
    this.#state.enter("free");
    const { environment, phase } = this.#state;
    if (phase.phase === "acquired") giveBack(environment, phase);
    this.#state.phase = { phase: "freed" };
    environment.onFree();
  }

  [Symbol.asyncDispose](): Promise<void> {
    if (this.#state.phase.phase !== "freed") this.free();
    return Promise.resolve();
  }
}
