import { LockvisorError } from "../errors.ts";
import { sha1 } from "./digest.ts";

/**
 * The namespace of UUIDs made from guest names: the UUIDv5 of `lockvisor` in the DNS namespace
 * (6ba7b810-9dad-11d1-80b4-00c04fd430c8) of RFC 9562, computed once. It must never change: a guest's lock on
 * itself hangs on it.
 */
export const LOCKVISOR_NAMESPACE = "c64644e7-9202-57e4-b1e7-2dcb8b7d007e";

const CANONICAL = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;
const NIL = "00000000-0000-0000-0000-000000000000";

/** The UUID of a guest that was given only a name: always the same for the same name. */
export function uuidOfName(name: string): string {
  return uuidVersion5(LOCKVISOR_NAMESPACE, name);
}

/** UUID version 5 (RFC 9562, 5.5): SHA-1 over the namespace's 16 bytes and the name in UTF-8. */
export function uuidVersion5(namespace: string, name: string): string {
  const bytes = sha1(new Uint8Array([...bytesOf(namespace), ...new TextEncoder().encode(name)])).subarray(
    0,
    16,
  );
  bytes[6] = (bytes[6]! & 0x0f) | 0x50;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  const digits = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return [8, 12, 16, 20, 32].map((end, index) => digits.slice([0, 8, 12, 16, 20][index], end)).join("-");
}

/** The 16 bytes of a UUID. */
function bytesOf(uuid: string): number[] {
  const digits = uuid.replaceAll("-", "");
  return Array.from({ length: 16 }, (_, index) => parseInt(digits.slice(2 * index, 2 * index + 2), 16));
}

/** Whether a text is a UUID in the usual form, 8-4-4-4-12 digits in either case, and not the nil UUID. */
export function isUuid(text: string): boolean {
  return CANONICAL.test(text) && text !== NIL;
}

/**
 * The UUID in lower case.
 *
 * @throws LockvisorError `usage` for anything that {@linkcode isUuid} does not accept.
 */
export function normaliseUuid(text: string): string {
  if (text === NIL) {
    throw new LockvisorError("usage", `the UUID "${text}" is the nil UUID; it cannot stand for a guest`);
  }
  if (!CANONICAL.test(text)) {
    throw new LockvisorError(
      "usage",
      `"${text}" is not a UUID; wanted 32 hexadecimal digits in the form 8-4-4-4-12, as uuidgen prints it`,
    );
  }
  return text.toLowerCase();
}
