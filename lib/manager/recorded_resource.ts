import { type Access, isAccess } from "../access.ts";
import type { Holder, Known, ResourceType } from "../driver/contract.ts";
import { isCount, isText, JsonFields, WrongShape } from "../files/json_shape.ts";
import type { Identity } from "../identity/key.ts";
import type { ResolvedResource } from "../identity/resource.ts";

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
  /** The access that it is about to have, or a change to that was cut off: its locks may be in either mode. */
  changing?: Access;
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

/** A key as records have it. @throws {WrongShape} */
export function readKey(value: unknown): string {
  if (!isText(value) || !/^[0-9a-f]{64}$/.test(value)) {
    throw new WrongShape("a key is not 64 hexadecimal digits");
  }
  return value;
}

/** A resource as records have it. @throws {WrongShape} naming the first field that is not as it should be */
export function readResource(value: unknown): RecordedResource {
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
    ...(fields.get("changing", isAnything, "an access") === undefined
      ? {}
      : { changing: fields.get("changing", isAccess, "an access") }),
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

/** For what a record says only where it is so. */
export function isOptionalTrue(value: unknown): value is true | undefined {
  return value === true || value === undefined;
}
