import type { CarriedLock, Carrier, GivenUpKey, GrantedKey, OnLockFailure } from "../driver/contract.ts";
import type { Migration } from "../driver/migration.ts";
import { isCount, isText, JsonFields, WrongShape } from "../files/json_shape.ts";
import { readGrant, readGrants } from "../lockspace/granted_key.ts";
import { readMigration } from "../lockspace/noted_migration.ts";
import { readProcessIdentity } from "../process/process_identity.ts";
import { type NotedJobs, readDiskJobs } from "./disk_job_record.ts";
import { type PluggedDisk, readPluggedDisk } from "./plugged_disk.ts";
import { isOptionalTrue, readKey, readResource, type RecordedResource } from "./recorded_resource.ts";

export {
  readKey,
  type RecordedResource,
  recordedResource,
  type UnprotectedResource,
  type WrittenResource,
} from "./recorded_resource.ts";

/** The states in a guest's life. */
export type GuestState =
  | "starting"
  | "running"
  | "paused"
  | "migrating-out"
  | "incoming"
  | "lock-lost"
  | "stopped";

/** All states, for reading records. */
export const GUEST_STATES: readonly GuestState[] = [
  "starting",
  "running",
  "paused",
  "migrating-out",
  "incoming",
  "lock-lost",
  "stopped",
];

/** A pause that keeps the locks or gives them up, or a resume that has all locks back. */
export type PendingChange = "pause" | "pause-release" | "resume";

/** What is written down about a guest: a hint for people and for finding things, never proof. */
export interface GuestRecord extends NotedJobs {
  uuid: string;
  name: string;
  id: string | null;
  plugin: string;
  state: GuestState;
  since: string;
  hostId: string;
  carriers: [Carrier, ...Carrier[]];
  /** Keys of the lease that the guest has on itself. */
  leaseKeys: string[];
  resources: RecordedResource[];
  /** How its keys were granted. Records of older versions do not tell. */
  grants?: readonly GrantedKey[];
  /** What a paused guest has given up until it resumes. */
  givenUp: GivenUpKey[];
  /** Its processors were stopped for want of locks, and nobody has resumed it since. */
  halted?: true;
  /** What is being done to the guest's processors: cut off, `attach` finishes it. */
  pending?: PendingChange;
  /** It is on its way to or from another host: its carriers have one slot of each key that moves. */
  migration?: Migration;
  /** The disks that were plugged in by `disk plug`. */
  plugged?: readonly PluggedDisk[];
  command: string[];
  qmp: string | null;
  onLockFailure: OnLockFailure;
}

const RECORD_VERSION = 1;

/** The record as text for its file. */
export function formatGuestRecord(record: GuestRecord): string {
  return JSON.stringify({ version: RECORD_VERSION, ...record }) + "\n";
}

/** Reads a record's JSON. @throws {WrongShape} naming the first field that is not as it should be */
export function parseGuestRecord(value: unknown): GuestRecord {
  const fields = new JsonFields(value);
  if (fields.count("version") !== RECORD_VERSION) throw new WrongShape("its version is not known here");
  const [first, ...others] = fields.list("carriers", readCarrier);
  if (first === undefined) throw new WrongShape(`field "carriers" of it is empty`);
  return {
    uuid: fields.text("uuid"),
    name: fields.text("name"),
    id: fields.optionalText("id") ?? null,
    plugin: fields.text("plugin"),
    state: fields.get("state", isGuestState, "a state"),
    since: fields.text("since"),
    hostId: fields.text("hostId"),
    carriers: [first, ...others],
    leaseKeys: fields.list("leaseKeys", readKey),
    resources: fields.list("resources", readResource),
    grants: readGrants(fields),
    givenUp: fields.list("givenUp", readGrant),
    ...(fields.get("halted", isOptionalTrue, "true") === undefined ? {} : { halted: true }),
    ...readPending(fields),
    ...readMigration(fields),
    ...readPlugged(fields),
    ...readDiskJobs(fields),
    command: fields.list("command", readText),
    qmp: fields.optionalText("qmp") ?? null,
    onLockFailure: fields.get("onLockFailure", isOnLockFailure, "pause, kill or ignore"),
  };
}

/** Whether a text names an action on a lost lock. */
export function isOnLockFailure(value: unknown): value is OnLockFailure {
  return value === "pause" || value === "kill" || value === "ignore";
}

function isGuestState(value: unknown): value is GuestState {
  return (GUEST_STATES as readonly unknown[]).includes(value);
}

function readText(value: unknown): string {
  if (!isText(value)) throw new WrongShape("a text is missing");
  return value;
}

/** A carrier as records have it. @throws {WrongShape} naming the first field that is not as it should be */
export function readCarrier(value: unknown): Carrier {
  const kind = new JsonFields(value, "a carrier").get("kind", isCarrierKind, "guest, monitor or holder");
  return {
    kind,
    ...readProcessIdentity(value),
    locks: new JsonFields(value, "a carrier").list("locks", readLock),
  };
}

function isCarrierKind(value: unknown): value is Carrier["kind"] {
  return value === "guest" || value === "monitor" || value === "holder";
}

/** A lock of a carrier as records have it. @throws {WrongShape} */
export function readLock(value: unknown): CarriedLock {
  const fields = new JsonFields(value, "a lock");
  const slots = fields.object("slots");
  const lock: CarriedLock = { key: readKey(fields.text("key")), slots: {} };
  for (const slot of ["a", "b"] as const) {
    const number = slots.get(slot, isOptionalCount, "a descriptor's number");
    if (number !== undefined) lock.slots[slot] = number;
  }
  return lock;
}

function isOptionalCount(value: unknown): value is number | undefined {
  return value === undefined || isCount(value);
}

function readPending(fields: JsonFields): { pending?: PendingChange } {
  const pending = fields.get("pending", isOptionalChange, "pause, pause-release or resume");
  return pending === undefined ? {} : { pending };
}

function readPlugged(fields: JsonFields): { plugged?: readonly PluggedDisk[] } {
  if (fields.get("plugged", isOptionalList, "a list") === undefined) return {};
  return { plugged: fields.list("plugged", readPluggedDisk) };
}

function isOptionalList(value: unknown): value is unknown[] | undefined {
  return value === undefined || Array.isArray(value);
}

function isOptionalChange(value: unknown): value is PendingChange | undefined {
  return value === undefined || value === "pause" || value === "pause-release" || value === "resume";
}

/** A record in a state that somebody wanted, with nothing on its way any more. */
export function settled(
  { pending: _, halted: __, ...record }: GuestRecord,
  state: GuestState,
): GuestRecord {
  return { ...record, state };
}

/** The state of a guest that is on its way; one that has come, and lacks only the source's slots, runs. */
export function stateOfMigration(migration: Migration): GuestState {
  if (migration.role === "out") return "migrating-out";
  return migration.arrived ? "running" : "incoming";
}

/** The grants of a record after some of its keys were granted anew. */
export function withGrants(
  earlier: readonly GrantedKey[] | undefined,
  later: readonly GrantedKey[] | undefined,
): readonly GrantedKey[] {
  const grants = new Map([...earlier ?? [], ...later ?? []].map((grant) => [grant.key, grant]));
  return [...grants.values()];
}
