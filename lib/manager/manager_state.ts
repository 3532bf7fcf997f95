import type {
  Driver,
  DriverCapabilities,
  DriverConfig,
  Guest,
  ResolvedResource,
} from "../driver/contract.ts";
import { LockvisorError } from "../errors.ts";
import { uuidOfName } from "../identity/key.ts";
import type { AttachedContext } from "./attached_record.ts";
import type { GuestRecord } from "./guest_record.ts";
import type { GuestStore } from "./guest_store.ts";
import { type ManagerCall, type ManagerMode, type Phase, refuseOutOfOrder } from "./manager_phase.ts";
import type { Parameters } from "./parameters.ts";
import type { ResourceScope } from "./registered_resource.ts";
import type { Enforcement } from "./start_guest.ts";

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

/** What ends when a manager is freed. */
export interface ManagerEnvironment extends ManagerOptions {
  mode: ManagerMode;
  onFree(): void;
}

/** A call about a guest that is acquired or attached, while it is carried out. */
export interface GuestCall {
  plugin: LoadedDriver;
  context: AttachedContext;
  scope: ResourceScope;
  record: GuestRecord;
  /** In which phase the call was made. */
  phase: Phase;
  /** The phase that the manager is in when the call has been carried out; else it is the one before. */
  become(phase: Phase): void;
}

/** What a manager has been told and has done: of which guest it is, and where in its life. */
export class ManagerState {
  readonly plugin: LoadedDriver;
  readonly environment: ManagerEnvironment;
  readonly parameters: Partial<Parameters> = {};
  /** What was registered. */
  readonly resources: ResolvedResource[] = [];
  phase: Phase = { phase: "open" };

  constructor(plugin: LoadedDriver, environment: ManagerEnvironment) {
    this.plugin = plugin;
    this.environment = environment;
  }

  /** Begins a call. @throws {LockvisorError} `usage` where it has no place */
  enter(call: ManagerCall): void {
    refuseOutOfOrder(call, this.environment.mode, this.phase.phase);
  }

  /**
   * Carries out a call that takes time. Until its end no other call is possible, and it ends in the phase that it
   * became; if it fails, in the one before.
   */
  async during<Result>(step: (become: (phase: Phase) => void) => Promise<Result>): Promise<Result> {
    let next = this.phase;
    this.phase = { phase: "busy" };
    try {
      return await step((phase) => next = phase);
    } finally {
      this.phase = next;
    }
  }

  /** Begins a call about the guest that is acquired or attached, and carries it out. */
  async onGuest<Result>(call: ManagerCall, step: (guest: GuestCall) => Promise<Result>): Promise<Result> {
    const record = this.record(call);
    const { plugin, phase } = this;
    return await this.during((become) =>
      step({ plugin, context: this.context(), scope: this.scope(), record, phase, become })
    );
  }

  /** Begins a call, and gives the record of the guest that is acquired or attached. */
  record(call: ManagerCall): GuestRecord {
    this.enter(call);
    if (this.phase.phase === "acquired" || this.phase.phase === "attached") return this.phase.record;
    throw new LockvisorError("internal", `${call}: the manager has no guest`);
  }

  context(): AttachedContext {
    const { driver, name: plugin, config } = this.plugin;
    const { store, enforce } = this.environment;
    return { store, driver, plugin, hostId: config.host.id, enforce };
  }

  /** The guest as it was described. @throws {LockvisorError} `usage` for one without a name */
  guest(): Guest {
    const { name, uuid, id, qmp } = this.parameters;
    if (name === undefined) {
      throw new LockvisorError("usage", `the guest has no name; set the parameter "name"`);
    }
    return {
      name,
      uuid: uuid ?? uuidOfName(name),
      id: id ?? null,
      qmp: qmp ?? null,
      onLockFailure: this.parameters["on-lock-failure"] ?? "pause",
    };
  }

  scope(): ResourceScope {
    return { config: this.plugin.config, cwd: this.environment.cwd };
  }
}

/** Gives the locks that are in this process back, and takes the guest's record away. */
export function giveBack(
  { store }: Pick<ManagerOptions, "store">,
  { hold, record }: Extract<Phase, { phase: "acquired" }>,
): void {
  store.remove(record);
  hold.giveBack();
}
