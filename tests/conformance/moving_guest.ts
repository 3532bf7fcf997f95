import type { MigrationTicket } from "../../lib/driver/migration.ts";
import type { Guest } from "../support/guest.ts";
import { ManagerProcess, type RemoteManager } from "../support/manager_process.ts";
import { World } from "../support/world.ts";
import type { Candidate } from "./candidate.ts";
import { attachTo, startGuest } from "./running_guest.ts";

/** Guest vm1 on one host, and a second one that shares the lockspace; managers of both. */
export interface Journey {
  plugin: string;
  here: World;
  there: World;
  guest: Guest;
  /** Managers where the guest is, and where it is to go to. */
  source: ManagerProcess;
  destination: ManagerProcess;
  /** Attached to the guest where it is. */
  manager: RemoteManager;
}

/** Starts guest vm1 with a lease, and does something. */
export async function withJourney(
  candidate: Candidate,
  action: (journey: Journey) => Promise<void>,
): Promise<void> {
  await using here = await World.create();
  await using there = await World.create({ hostId: "elsewhere", lockspace: here.lockspace });
  const plugin = await candidate.install(here);
  const guest = await startGuest(here, { plugin, name: "vm1" }, ["--lease", "cluster:db"]);
  await using source = ManagerProcess.start(here, plugin);
  await using destination = ManagerProcess.start(there, plugin);
  const manager = await attachTo(source, "vm1");
  await action({ plugin, here, there, guest, source, destination, manager });
}

/** A new ticket, which makes an earlier one worthless. */
export function newTicket({ manager }: Journey): Promise<MigrationTicket> {
  return manager.call("prepareMigrate", "ssh://elsewhere");
}

/** A manager of mode `migrate` that has been told of a ticket. */
export async function arrival({ destination }: Journey, ticket: MigrationTicket): Promise<RemoteManager> {
  const manager = await destination.newManager("migrate");
  await manager.call("setParameter", "name", ticket.guest.name);
  await manager.call("setParameter", "uuid", ticket.guest.uuid);
  await manager.call("setParameter", "ticket", ticket);
  return manager;
}

/** Starts what waits for the guest, as a management tool does: by the supervisor's arguments. */
export async function comeIn(journey: Journey): Promise<Guest> {
  const ticket = await newTicket(journey);
  const manager = await arrival(journey, ticket);
  const args = await manager.call("supervisorArgs");
  await manager.call("free");
  const file = `${journey.there.directory}/ticket`;
  await Deno.writeTextFile(file, JSON.stringify({ version: 1, ...ticket }) + "\n", { mode: 0o600 });
  return await journey.there.startRunning([
    ...args.map((arg) => arg === "--ticket=-" ? `--ticket=${file}` : arg),
    "sleep",
    "60",
  ]);
}

/** A manager of mode `migrate` that is attached to the guest that has come in. */
export async function attachToIncoming({ destination }: Journey): Promise<RemoteManager> {
  const manager = await destination.newManager("migrate");
  await manager.call("setParameter", "name", "vm1");
  await manager.call("attach");
  return manager;
}
