import { type Access, isAccess } from "../access.ts";
import type {
  CarriedLock,
  Carrier,
  GivenUpKey,
  GrantedKey,
  Holder,
  Known,
  OnLockFailure,
  ResourceType,
} from "../driver/contract.ts";
import type { Migration } from "../driver/migration.ts";
import type { Identity } from "../identity/key.ts";
import type { ResolvedResource } from "../identity/resource.ts";
import { isCount, isText, JsonFields, WrongShape } from "../files/json_shape.ts";
import { readGrant, readGrants } from "../lockspace/granted_key.ts";
import { readMigration } from "../lockspace/noted_migration.ts";
import { readProcessIdentity } from "../process/process_identity.ts";
import { type PluggedDisk, readPluggedDisk } from "./plugged_disk.ts";

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

/** A resource as a guest's record names it. */
export interface RecordedResource {
  type: ResourceType;
  name: string;
  access: Access;
  /** What it is locked by; none where the driver takes no lock on it, or where it is `unprotected`. */
  keys: string[];
  /** Somebody else had it, and the guest goes without its lock (setting `enforce`) until it is free. */
  unprotected?: UnprotectedResource;
  /** QEMU writes what is locked for reading only, since somebody else had it. */
  written?: WrittenResource;
  /** Nobody has named it by hand: `reconcile` may weaken its lock, and give it up, as QEMU does. */
  followed?: true;
  /** QEMU has had it open, seen by `reconcile`: if it is not open any more, QEMU has given it up. */
  seen?: true;
  /** A release is on its way, or was cut off: its locks may be gone, and nobody takes them again. */
  leaving?: true;
}

/** What a guest would have locked, and who had it when that was looked at last. */
export interface UnprotectedResource {
  identities: readonly Identity[];
  /** Null where that cannot be seen from here. */
  holder: Holder | null;
}

/** What a guest should have a resource for, and who stood in the way when that was looked at last. */
export interface WrittenResource extends UnprotectedResource {
  access: Access;
}

/** A resource as it goes into a record. */
export function recordedResource(
  { type, name, access, followed }: ResolvedResource,
  keys: string[],
): RecordedResource {
  return { type, name, access, keys, ...(followed === undefined ? {} : { followed }) };
}

/** A pause that keeps the locks or gives them up, or a resume that has all locks back. */
export type PendingChange = "pause" | "pause-release" | "resume";

/** What is written down about a guest: a hint for people and for finding things, never proof. */
export interface GuestRecord {
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

/** A key as records have it. @throws {WrongShape} */
export function readKey(value: unknown): string {
  if (!isText(value) || !/^[0-9a-f]{64}$/.test(value)) {
    throw new WrongShape("a key is not 64 hexadecimal digits");
  }
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

function readResource(value: unknown): RecordedResource {
  const fields = new JsonFields(value, "a resource");
  return {
    type: fields.get("type", (type) => type === "disk" || type === "lease", "disk or lease"),
    name: fields.text("name"),
    access: fields.get("access", isAccess, "an access"),
    keys: fields.list("keys", readKey),
    ...readUnprotected(fields),
    ...readWritten(fields),
    ...(fields.get("followed", isOptionalTrue, "true") === undefined ? {} : { followed: true }),
    ...(fields.get("seen", isOptionalTrue, "true") === undefined ? {} : { seen: true }),
    ...(fields.get("leaving", isOptionalTrue, "true") === undefined ? {} : { leaving: true }),
  };
}

function readUnprotected(fields: JsonFields): { unprotected?: UnprotectedResource } {
  if (fields.get("unprotected", isAnything, "an object") === undefined) return {};
  return { unprotected: readObstructed(fields.object("unprotected")) };
}

function readWritten(fields: JsonFields): { written?: WrittenResource } {
  if (fields.get("written", isAnything, "an object") === undefined) return {};
  const written = fields.object("written");
  return {
    written: { ...readObstructed(written), access: written.get("access", isAccess, "an access") },
  };
}

function readObstructed(fields: JsonFields): UnprotectedResource {
  const holder = fields.get("holder", isAnything, "a holder") ?? null;
  return {
    identities: fields.list("identities", readIdentity),
    holder: holder === null ? null : readHolder(holder),
  };
}

function readIdentity(value: unknown): Identity {
  const fields = new JsonFields(value, "an identity");
  return {
    text: fields.text("text"),
    key: readKey(fields.text("key")),
    scope: fields.get("scope", isScope, "whole or containing"),
  };
}

function readHolder(value: unknown): Holder {
  const fields = new JsonFields(value, "a holder");
  return {
    uuid: fields.optionalText("uuid") ?? null,
    name: fields.optionalText("name") ?? null,
    pid: fields.get("pid", isCountOrNull, "a pid"),
    host: fields.optionalText("host") ?? null,
    access: fields.get("access", isAccessOrNull, "an access"),
    since: fields.optionalText("since") ?? null,
    alive: fields.get("alive", isKnown, "true, false or null"),
  };
}

function isAnything(_value: unknown): _value is unknown {
  return true;
}

function isScope(value: unknown): value is Identity["scope"] {
  return value === "whole" || value === "containing";
}

function isCountOrNull(value: unknown): value is number | null {
  return value === null || isCount(value);
}

function isAccessOrNull(value: unknown): value is Access | null {
  return value === null || isAccess(value);
}

function isKnown(value: unknown): value is Known {
  return value === null || typeof value === "boolean";
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

function isOptionalTrue(value: unknown): value is true | undefined {
  return value === true || value === undefined;
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
