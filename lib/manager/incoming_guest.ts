import type { ResolvedResource } from "../driver/contract.ts";
import type { MigrationTicket } from "../driver/migration.ts";
import { LockvisorError } from "../errors.ts";
import { isUuid, normaliseUuid } from "../identity/key.ts";
import type { AttachedContext } from "./attached_record.ts";
import { unknownGuest } from "./absent_guest.ts";
import type { GuestRecord } from "./guest_record.ts";
import { resolveRegistered, type ResourceScope } from "./registered_resource.ts";

/**
 * The record of a guest that comes in, by its uuid or name, or that has come: the agent may have been first to complete it.
 * @throws {LockvisorError} `data` when there is none
 */
export function attachIncoming({ store, plugin }: AttachedContext, nameOrUuid: string): GuestRecord {
  const uuid = isUuid(nameOrUuid) ? normaliseUuid(nameOrUuid) : undefined;
  const records = store.list().flatMap((entry) => entry.kind === "record" ? [entry.record] : []);
  const meant = records.filter((record) => record.uuid === uuid || record.name === nameOrUuid);
  const found = meant.find(({ migration }) => migration?.role === "in") ??
    meant.find(({ migration }) => migration === undefined);
  if (found === undefined) throw unknownGuest(nameOrUuid);
  if (found.plugin === plugin) return found;
  throw new LockvisorError(
    "data",
    `guest "${found.name}" is locked by plugin ${found.plugin}, not by ${plugin}`,
  );
}

/**
 * What a ticket's resources are here, in its order: what was registered, where something was, or else what the ticket names.
 * @throws {LockvisorError} `data` when what was registered is not what the ticket tells of
 */
export function resolveForTicket(
  ticket: MigrationTicket,
  registered: readonly ResolvedResource[],
  scope: ResourceScope,
): ResolvedResource[] {
  if (registered.length === 0) {
    return ticket.resources.map(({ type, name, access, followed }) =>
      marked(resolveRegistered("acquireObject", { type, name, access }, scope), followed)
    );
  }
  const left = [...registered];
  const resolved = ticket.resources.map(({ type, name, access, keys, followed }) => {
    const index = left.findIndex((each) =>
      each.type === type && each.access === access &&
      (each.name === name || each.identities.some(({ key }) => keys.includes(key)))
    );
    if (index >= 0) return marked(left.splice(index, 1)[0]!, followed);
    const here = left.map((each) => `${each.type} ${each.name} (${each.access})`).join(", ") || "nothing";
    throw new LockvisorError(
      "data",
      `${type} ${name} (${access}) moves with guest "${ticket.guest.name}" and is not the same as ${here} here; it must be on storage that both hosts share: a network filesystem, or a directory that both declare as [[storage]] with the same id`,
    );
  });
  const [strange] = left;
  if (strange === undefined) return resolved;
  throw new LockvisorError(
    "data",
    `${strange.type} ${strange.name} (${strange.access}) does not move with guest "${ticket.guest.name}"; acquire it when the guest has come`,
  );
}

/** A resource as the source has it: named by hand there or not. */
function marked(resource: ResolvedResource, followed: true | undefined): ResolvedResource {
  return followed === undefined ? resource : { ...resource, followed };
}
