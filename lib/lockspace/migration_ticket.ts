import { type Access, isAccess } from "../access.ts";
import type { GrantedKey, OnLockFailure, ResourceType } from "../driver/contract.ts";
import { LockvisorError } from "../errors.ts";
import { isText, JsonFields, WrongShape } from "../files/json_shape.ts";
import { keyOf } from "../identity/key.ts";
import { readGrants } from "./granted_key.ts";

/** A resource that moves with a guest. */
export interface TicketResource {
  type: ResourceType;
  name: string;
  access: Access;
  keys: string[];
  /** Nobody has named it by hand. */
  followed?: true;
}

/**
 * What a migration carries from the source to the destination. Whoever has it may take the second slot of the guest's
 * keys: it is as secret as a password, and only its hash stays beside the keys.
 */
export interface MigrationTicket {
  /** 256 random bits, hexadecimal: what makes the hash a proof. */
  secret: string;
  /** ISO 8601, UTC. */
  created: string;
  /** Nobody comes in by it from then on; ISO 8601, UTC. */
  expires: string;
  guest: { uuid: string; name: string; id: string | null; onLockFailure: OnLockFailure };
  plugin: string;
  /** The id of the lockspace that both sides must share. */
  lockspace: string;
  source: { id: string; name: string };
  /** Where the guest is to go, as the source was told. */
  destination: string;
  /** Keys of the lease that the guest has on itself. */
  leaseKeys: string[];
  resources: TicketResource[];
  /** Keys that mean something on the source host alone: its own paths and inodes. */
  hostKeys: string[];
  /** How each key is granted now: if a generation has grown by the time it is used, the ticket is stale. */
  grants: GrantedKey[];
}

const TICKET_VERSION = 1;

/** The ticket as one line of JSON. The order of its fields is part of it: the hash is over this text. */
export function formatTicket(ticket: MigrationTicket): string {
  const { secret, created, expires, guest, plugin, lockspace, source, destination } = ticket;
  return JSON.stringify({
    version: TICKET_VERSION,
    secret,
    created,
    expires,
    guest: { uuid: guest.uuid, name: guest.name, id: guest.id, onLockFailure: guest.onLockFailure },
    plugin,
    lockspace,
    source: { id: source.id, name: source.name },
    destination,
    leaseKeys: ticket.leaseKeys,
    resources: ticket.resources.map(({ type, name, access, keys, followed }) => ({
      ...{ type, name, access, keys },
      ...(followed === undefined ? {} : { followed }),
    })),
    hostKeys: ticket.hostKeys,
    grants: ticket.grants.map(({ key, mode, generation }) => ({ key, mode, generation })),
  });
}

/** What stays beside the keys: SHA-256 of the whole ticket, so that a changed one is another one. */
export function hashOfTicket(ticket: MigrationTicket): string {
  return keyOf(formatTicket(ticket));
}

/** A new secret. */
export function newSecret(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(32)), (byte) => byte.toString(16).padStart(2, "0"))
    .join("");
}

/**
 * Reads a ticket.
 * @param origin what a message calls it, such as the path of its file
 * @throws {LockvisorError} `data`, naming the first field that is not as it should be
 */
export function parseTicket(text: string, origin: string): MigrationTicket {
  try {
    return readTicket(JSON.parse(text));
  } catch (error) {
    const reason = error instanceof WrongShape
      ? error.message
      : error instanceof SyntaxError
      ? "it is not complete JSON"
      : undefined;
    if (reason === undefined) throw error;
    throw new LockvisorError(
      "data",
      `${origin} is no ticket of a migration: ${reason}; use what "lockvisor migrate prepare" gave, unchanged`,
    );
  }
}

function readTicket(value: unknown): MigrationTicket {
  const fields = new JsonFields(value);
  if (fields.count("version") !== TICKET_VERSION) throw new WrongShape("its version is not known here");
  return readTicketFields(fields);
}

/** A ticket, whatever version it is said to have. @throws {WrongShape} naming the first field that is not as it should be */
export function readTicketFields(fields: JsonFields): MigrationTicket {
  const [guest, source] = [fields.object("guest"), fields.object("source")];
  const secret = fields.text("secret");
  if (!/^[0-9a-f]{64}$/.test(secret)) throw new WrongShape("its secret is not 64 hexadecimal digits");
  return {
    secret,
    created: readTime(fields, "created"),
    expires: readTime(fields, "expires"),
    guest: {
      uuid: guest.text("uuid"),
      name: guest.text("name"),
      id: guest.optionalText("id") ?? null,
      onLockFailure: guest.get("onLockFailure", isAction, "pause, kill or ignore"),
    },
    plugin: fields.text("plugin"),
    lockspace: fields.text("lockspace"),
    source: { id: source.text("id"), name: source.text("name") },
    destination: fields.text("destination"),
    leaseKeys: fields.list("leaseKeys", readKey),
    resources: fields.list("resources", readResource),
    hostKeys: fields.list("hostKeys", readKey),
    grants: readGrants(fields),
  };
}

function readTime(fields: JsonFields, name: string): string {
  const time = fields.text(name);
  if (Number.isNaN(Date.parse(time))) throw new WrongShape(`field "${name}" of it is not a time`);
  return time;
}

function readResource(value: unknown): TicketResource {
  const fields = new JsonFields(value, "a resource");
  return {
    type: fields.get("type", (type) => type === "disk" || type === "lease", "disk or lease"),
    name: fields.text("name"),
    access: fields.get("access", isAccess, "an access"),
    keys: fields.list("keys", readKey),
    ...(fields.get("followed", isOptionalTrue, "true") === undefined ? {} : { followed: true }),
  };
}

function isOptionalTrue(value: unknown): value is true | undefined {
  return value === true || value === undefined;
}

function readKey(value: unknown): string {
  if (isText(value) && /^[0-9a-f]{64}$/.test(value)) return value;
  throw new WrongShape("a key is not 64 hexadecimal digits");
}

function isAction(value: unknown): value is OnLockFailure {
  return value === "pause" || value === "kill" || value === "ignore";
}
