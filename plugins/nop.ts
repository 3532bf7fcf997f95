import type {
  AcquireOutcome,
  AdoptOutcome,
  CarrierClaim,
  Driver,
  DriverDefinition,
  Forecast,
  GivenUpKey,
  Guest,
  Holding,
  Inspection,
  Known,
  LockEvidence,
  NotedGuest,
  PlugOutcome,
  ResolvedResource,
  RunningGuest,
  TakeBackOutcome,
  UnplugOutcome,
} from "../lib/driver/contract.ts";
import type { MigrationMethods } from "../lib/driver/migration.ts";
import type { ProcessIdentity } from "../lib/process/process_identity.ts";

/** The driver that takes no locks: guests are recorded, nothing is refused. */
class NopDriver implements Omit<Driver, keyof MigrationMethods> {
  acquire(): Promise<AcquireOutcome> {
    return Promise.resolve({
      outcome: "granted",
      hold: { locks: [], leaseKeys: [], giveBack() {} },
    });
  }

  adopt(_guest: Guest, process: ProcessIdentity): Promise<AdoptOutcome> {
    return Promise.resolve({
      outcome: "granted",
      carrier: { ...process, kind: "guest", locks: [] },
      leaseKeys: [],
    });
  }

  plug({ process }: RunningGuest): Promise<PlugOutcome> {
    return Promise.resolve({ outcome: "granted", carrier: { ...process, kind: "guest", locks: [] } });
  }

  unplug(
    { carriers }: RunningGuest,
    _keys: readonly string[],
    remember: () => void = () => {},
  ): Promise<UnplugOutcome> {
    remember();
    return Promise.resolve({ carriers: [...carriers], missing: [] });
  }

  giveUp(): Promise<void> {
    return Promise.resolve();
  }

  takeBack(): Promise<TakeBackOutcome> {
    return Promise.resolve({ outcome: "taken" });
  }

  inquire(): Promise<GivenUpKey[]> {
    return Promise.resolve([]);
  }

  forecast(_guest: Guest | undefined, resources: readonly ResolvedResource[]): Forecast[] {
    return resources.map((resource) => ({ resource, verdict: "skipped", holders: [] }));
  }

  inspect(): Inspection {
    return { locked: false, generation: null, holders: [], warnings: [] };
  }

  evidence(claims: readonly CarrierClaim[]): LockEvidence[][] {
    return claims.map(() => []);
  }

  holdings(): Holding[] {
    return [];
  }

  notedGuests(): NotedGuest[] {
    return [];
  }

  isHeld(): Known {
    return false;
  }

  keysOf(): string[] {
    return [];
  }
}

const definition: DriverDefinition = {
  name: "nop",
  capabilities: { resources: ["disk", "lease"], hotplug: true, migration: false, pause: true },
  create: () => new NopDriver(),
};

export default definition;
