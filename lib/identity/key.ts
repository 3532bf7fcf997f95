import { sha256Hex } from "./digest.ts";

export { isUuid, normaliseUuid, uuidOfName } from "./uuid.ts";

/**
 * How an identity is locked.
 *
 * - `whole`: the resource itself; locked with the mode that the guest asked for.
 * - `containing`: something larger that the resource is a part of (the disk of a partition). Only ever locked
 *   shared: two partitions do not exclude each other, but a guest that writes the whole disk excludes both.
 */
export type IdentityScope = "whole" | "containing";

/** One name of a resource that is the same for everybody who means the same resource. */
export interface Identity {
  /** The name in clear, for people: `inode:<host-id>:65024:2146483`. */
  text: string;
  /** SHA-256 of the text, 64 hexadecimal digits: the name of the lock. */
  key: string;
  scope: IdentityScope;
}

/** The key of an identity text: its SHA-256 as 64 lower-case hexadecimal digits. */
export function keyOf(text: string): string {
  return sha256Hex(text);
}

/** Whether an identity text means something on one host alone: its own paths, inodes, devices and sockets. */
export function isHostIdentity(text: string, hostId: string): boolean {
  return ["path", "inode", "block", "uri"].some((kind) => text.startsWith(`${kind}:${hostId}:`));
}

/** An identity with its key. */
export function identity(text: string, scope: IdentityScope = "whole"): Identity {
  return { text, key: keyOf(text), scope };
}

/**
 * Each key once, in ascending order, as locks are taken. Where one key comes with both scopes, `whole` stays:
 * it is the stronger of the two.
 */
export function sortedIdentities(identities: readonly Identity[]): Identity[] {
  const byKey = new Map<string, Identity>();
  for (const candidate of identities) {
    const present = byKey.get(candidate.key);
    if (present === undefined || candidate.scope === "whole") byKey.set(candidate.key, candidate);
  }
  return [...byKey.values()].sort((one, other) => (one.key < other.key ? -1 : one.key > other.key ? 1 : 0));
}
