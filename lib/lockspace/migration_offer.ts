import { LockvisorError } from "../errors.ts";
import { removeIfPresent, writeThenRename } from "../files/atomic_write.ts";
import { JsonFields, WrongShape } from "../files/json_shape.ts";
import { readRecordFile } from "../files/record_file.ts";
import { type ProcessIdentity, readProcessIdentity } from "../process/process_identity.ts";
import { ensureKeyDirectory, keyDirectory } from "./key_state.ts";
import type { Lockspace } from "./lockspace.ts";
import { OFFER_END } from "./offer_name.ts";

/*
 * What a source leaves beside each key of a guest that it lets go: who may take the second slot. One file for each guest
 * and key, since guests share disks. Nobody is granted anything by it: whoever comes in has the ticket that it is the hash
 * of, and takes the slot in the kernel.
 */

/** A guest's second slot, offered to whoever has the ticket. */
export interface MigrationOffer {
  /** SHA-256 of the ticket. */
  ticketHash: string;
  guest: { uuid: string; name: string };
  source: { id: string; name: string };
  destination: string;
  /** ISO 8601. */
  expires: string;
  /** Who has come in by it: nobody else does, whatever became of that one. */
  taken?: { host: { id: string; name: string }; process: ProcessIdentity; since: string };
}

const OFFER_VERSION = 1;

function offerPath(lockspace: Lockspace, key: string, uuid: string): string {
  return `${keyDirectory(lockspace, key)}/${uuid}${OFFER_END}`;
}

/** Writes a guest's offer beside a key. */
export function writeOffer(lockspace: Lockspace, key: string, offer: MigrationOffer): void {
  ensureKeyDirectory(lockspace, key);
  writeThenRename(
    offerPath(lockspace, key, offer.guest.uuid),
    JSON.stringify({ version: OFFER_VERSION, ...offer }) + "\n",
  );
}

/** Takes a guest's offer away from beside a key. */
export function removeOffer(lockspace: Lockspace, key: string, uuid: string): void {
  removeIfPresent(offerPath(lockspace, key, uuid));
}

/** A guest's offer beside a key, if there is one. @throws {LockvisorError} `data` when it cannot be read */
export function readOffer(lockspace: Lockspace, key: string, uuid: string): MigrationOffer | undefined {
  const path = offerPath(lockspace, key, uuid);
  const file = readRecordFile(path);
  switch (file.kind) {
    case "absent":
      return undefined;
    case "damaged":
      throw damagedOffer(path, file.reason);
    case "json":
      try {
        return parseOffer(file.value);
      } catch (error) {
        if (error instanceof WrongShape) throw damagedOffer(path, error.message);
        throw error;
      }
  }
}

/** A guest's offer beside a key, if there is one that can be read: for whoever only tidies up. */
export function offerIfReadable(lockspace: Lockspace, key: string, uuid: string): MigrationOffer | undefined {
  try {
    return readOffer(lockspace, key, uuid);
  } catch (error) {
    if (error instanceof LockvisorError && error.code === "data") return undefined;
    throw error;
  }
}

function parseOffer(value: unknown): MigrationOffer {
  const fields = new JsonFields(value);
  if (fields.count("version") !== OFFER_VERSION) throw new WrongShape("its version is not known here");
  const [guest, source] = [fields.object("guest"), fields.object("source")];
  const isTaken = fields.get("taken", (_value): _value is unknown => true, "") !== undefined;
  return {
    ticketHash: fields.text("ticketHash"),
    guest: { uuid: guest.text("uuid"), name: guest.text("name") },
    source: { id: source.text("id"), name: source.text("name") },
    destination: fields.text("destination"),
    expires: fields.text("expires"),
    ...(isTaken ? { taken: readTaken(fields.object("taken")) } : {}),
  };
}

function readTaken(fields: JsonFields): NonNullable<MigrationOffer["taken"]> {
  const host = fields.object("host");
  return {
    host: { id: host.text("id"), name: host.text("name") },
    process: readProcessIdentity(fields.get("process", (_value): _value is unknown => true, "a process")),
    since: fields.text("since"),
  };
}

function damagedOffer(path: string, reason: string): LockvisorError {
  return new LockvisorError(
    "data",
    `offer ${path} cannot be read: ${reason}; cancel the migration on the source, and prepare it anew`,
  );
}
