import type {
  CarriedLock,
  Driver,
  DriverConfig,
  DriverDefinition,
  Forecast,
  Guest,
  Hold,
  ResolvedResource,
  ResourceType,
} from "../driver/contract.ts";
import { type Access, ACCESSES, isAccess } from "../access.ts";
import { LockvisorError } from "../errors.ts";
import type { DeclaredStorage } from "../config/settings.ts";
import { resolveResource } from "../identity/resource.ts";
import { uuidOfName } from "../identity/key.ts";
import { identifySelf } from "../process/process_identity.ts";
import type { GuestRecord } from "./guest_record.ts";
import type { GuestStore } from "./guest_store.ts";
import { checkParameter, type Parameters } from "./parameters.ts";
import { lockedError } from "./refusal.ts";

/** What a manager is made for: a guest that starts, one that runs already, or one that comes in by migration. */
export type ManagerMode = "start" | "attach" | "migrate";

/** What a manager needs beside its driver. */
export interface ManagerOptions {
  store: GuestStore;
  storage: readonly DeclaredStorage[];
  /** Where relative paths start; default: the current directory. */
  cwd?: string;
}

/** Where a manager is in its life. Fields exist only where they are true. */
type Phase =
  | { phase: "open" }
  | { phase: "acquiring" }
  | { phase: "acquired"; hold: Hold; record: GuestRecord }
  | { phase: "shut-down" }
  | { phase: "freed" };

/** In which phases each call makes sense; everything else is refused by name. */
const ALLOWED: Record<string, readonly Phase["phase"][]> = {
  setParameter: ["open"],
  registerResource: ["open"],
  forecast: ["open"],
  acquireObject: ["open"],
  handOver: ["acquired"],
  child: ["acquired"],
  shutdown: ["acquired"],
  supervisorPath: ["open", "acquired"],
  supervisorArgs: ["open", "acquired"],
  free: ["open", "acquired", "shut-down"],
};

/**
 * The lock manager of one guest, with the calls of libvirt's first design: say who the guest is, register what
 * it uses, acquire all of it at once. Calls out of order are refused with an error that names call and state.
 */
export class LockManager implements AsyncDisposable {
  readonly #definition: DriverDefinition;
  readonly #driver: Driver;
  readonly #config: DriverConfig;
  readonly #options: ManagerOptions;
  readonly #onFree: () => void;
  readonly #parameters: Partial<Parameters> = {};
  readonly #resources: ResolvedResource[] = [];
  #phase: Phase = { phase: "open" };

  constructor(
    definition: DriverDefinition,
    config: DriverConfig,
    options: ManagerOptions,
    onFree: () => void,
  ) {
    this.#definition = definition;
    this.#driver = definition.create(config);
    this.#config = config;
    this.#options = options;
    this.#onFree = onFree;
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
   * Names a disk or a lease that the guest uses. Finding out what it really is happens here.
   * @throws {LockvisorError} `data` or `permission` for a disk that is not there, is no disk, or may not be read
   */
  registerResource(type: ResourceType, name: string, access: Access): void {
    this.#enter("registerResource");
    if (typeof name !== "string") {
      {
        throw new LockvisorError("usage", `registerResource: the name ${JSON.stringify(name)} is not a text`);
      }
    }
    if (type !== "disk" && type !== "lease") {
      throw new LockvisorError(
        "usage",
        `registerResource: unknown resource type "${type}"; there are: disk, lease`,
      );
    }
    if (!isAccess(access)) {
      throw new LockvisorError(
        "usage",
        `registerResource: unknown access "${access}"; there are: ${ACCESSES.join(", ")}`,
      );
    }
    // A driver that leases whole guests may ignore resources; they are kept in the record all the same.
    this.#resources.push(
      resolveResource({ type, name, access }, {
        hostId: this.#config.host.id,
        storage: this.#options.storage,
        ...(this.#options.cwd === undefined ? {} : { cwd: this.#options.cwd }),
      }),
    );
  }

  /** What acquireObject would meet now. Takes nothing and writes nothing. */
  forecast(): Forecast[] {
    this.#enter("forecast");
    return this.#driver.forecast(this.#guest(), this.#resources);
  }

  /**
   * Takes every lock of the guest, or none, and writes the guest's record. The locks are in this process then.
   * May be called again after it was refused.
   * @throws {LockvisorError} `locked` with the holder's name
   */
  async acquireObject(): Promise<void> {
    this.#enter("acquireObject");
    const guest = this.#guest();
    this.#options.store.prepare(this.#config.effectiveUid);
    this.#phase = { phase: "acquiring" };
    try {
      this.#phase = await this.#take(guest);
    } finally {
      if (this.#phase.phase === "acquiring") this.#phase = { phase: "open" };
    }
  }

  async #take(guest: Guest): Promise<Phase> {
    const result = await this.#driver.acquire(guest, this.#resources);
    if (result.outcome === "refused") throw lockedError(result.refusal);
    const { hold } = result;
    try {
      const record = this.#recordOf(guest, hold);
      this.#options.store.claim(record);
      return { phase: "acquired", hold, record };
    } catch (error) {
      hold.giveBack();
      throw error;
    }
  }

  /** Makes the locks survive an exec of this process: the guest's program will hold them. */
  handOver(): void {
    this.#acquired("handOver").hold.makeInheritable();
  }

  /** The pid of the guest's process: our own, since we become the guest. */
  child(): number {
    return this.#acquired("child").record.carriers[0].pid;
  }

  /** The program that a management tool puts before the guest's command: this one. */
  supervisorPath(): string {
    this.#enter("supervisorPath");
    return Deno.execPath();
  }

  /** The arguments of that program, up to and with the `--` before the guest's command. */
  supervisorArgs(): string[] {
    this.#enter("supervisorArgs");
    const guest = this.#guest();
    // With "=", since a value may begin with a dash.
    const args = ["run", `--plugin=${this.#definition.name}`, `--name=${guest.name}`, `--uuid=${guest.uuid}`];
    if (guest.id !== null) args.push(`--id=${guest.id}`);
    if (guest.qmp !== null) args.push(`--qmp=${guest.qmp}`);
    args.push(`--on-lock-failure=${guest.onLockFailure}`, ...this.#settingArgs());
    for (const { type, name, access } of this.#resources) {
      args.push(`--${type}=${name.replaceAll(",", ",,")},access=${access}`);
    }
    return [...args, "--"];
  }

  /** The settings in force here, so that the program we name works on the same lockspace and records. */
  #settingArgs(): string[] {
    const { lockspace, host, sharedStorage, readonlyDisks } = this.#config;
    return [
      ...(lockspace.origin === "configured" ? [`--lockspace=${lockspace.path}`] : []),
      `--runtime-dir=${this.#options.store.runtimeDir}`,
      `--host-id=${host.id}`,
      `--shared-storage=${sharedStorage}`,
      `--readonly=${readonlyDisks}`,
      ...this.#options.storage.map(({ id, path }) => `--storage=${id}=${path}`),
    ];
  }

  /** The guest did not start or has ended: gives its locks back and takes its record away. */
  shutdown(): void {
    const { hold, record } = this.#acquired("shutdown");
    this.#options.store.remove(record);
    hold.giveBack();
    this.#phase = { phase: "shut-down" };
  }

  /** Ends the manager. Locks that are still in this process are given back. */
  free(): void {
    this.#enter("free");
    if (this.#phase.phase === "acquired") this.shutdown();
    this.#phase = { phase: "freed" };
    this.#onFree();
  }

  [Symbol.asyncDispose](): Promise<void> {
    if (this.#phase.phase !== "freed") this.free();
    return Promise.resolve();
  }

  #acquired(call: string): Extract<Phase, { phase: "acquired" }> {
    this.#enter(call);
    return this.#phase as Extract<Phase, { phase: "acquired" }>;
  }

  #enter(call: string): void {
    const { phase } = this.#phase;
    if (ALLOWED[call]?.includes(phase)) return;
    const wanted = ALLOWED[call]?.map((name) => `"${name}"`).join(" or ");
    throw new LockvisorError(
      "usage",
      `${call}: not possible in state "${phase}" of the manager, only in ${wanted}`,
    );
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

  #recordOf(guest: Guest, hold: Hold): GuestRecord {
    return {
      uuid: guest.uuid,
      name: guest.name,
      id: guest.id,
      plugin: this.#definition.name,
      state: "starting",
      since: new Date().toISOString().replace(/\.\d+Z$/, "Z"),
      hostId: this.#config.host.id,
      carriers: [{ kind: "guest", ...identifySelf(), locks: hold.locks satisfies CarriedLock[] }],
      leaseKeys: hold.leaseKeys,
      resources: this.#resources.map((resource) => ({
        type: resource.type,
        name: resource.name,
        access: resource.access,
        keys: this.#driver.keysOf(resource),
      })),
      givenUp: [],
      command: this.#parameters.command ?? [],
      qmp: guest.qmp,
      onLockFailure: guest.onLockFailure,
    };
  }
}
