import { resourcesChangeAccess } from "../../lib/domain_lock.ts";
import { exitStatusOf, LockvisorError } from "../../lib/errors.ts";
import { parseDisk } from "../../lib/identity/specification.ts";
import { findLivingGuest } from "../../lib/manager/find_guest.ts";
import { loadPlugin } from "../../lib/manager/plugin.ts";
import { driverConfigOf, managerOptionsOf } from "./drivers.ts";
import type { World } from "./world.ts";

// Changes the access of disks of a guest that runs: GUEST DISK[,access=ACCESS] …, in the world that the environment names.
// READONLY_DISKS is the setting `readonly`.
const [guest, ...disks] = Deno.args as [string, ...string[]];
const world = {
  lockspace: Deno.env.get("LOCKVISOR_LOCKSPACE")!,
  runtimeDir: Deno.env.get("LOCKVISOR_RUNTIME_DIR")!,
  hostId: Deno.env.get("LOCKVISOR_HOST_ID")!,
  directory: Deno.cwd(),
} as World;
try {
  const options = managerOptionsOf(world);
  const record = findLivingGuest(options.store, guest);
  const readonlyDisks = Deno.env.get("READONLY_DISKS") === "none" ? "none" : "lock";
  const plugin = await loadPlugin(record.plugin, { ...driverConfigOf(world), readonlyDisks });
  const { done } = await resourcesChangeAccess({ plugin, options }, record, disks.map(parseDisk));
  for (const { kind, resource } of done) console.log(`${kind} ${resource.name} ${resource.access}`);
} catch (error) {
  if (!(error instanceof LockvisorError)) throw error;
  console.error(error.message);
  Deno.exit(exitStatusOf(error.code));
}
