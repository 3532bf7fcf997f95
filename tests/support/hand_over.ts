import { loadPlugin } from "../../lib/manager/plugin.ts";
import { driverConfigOf, managerOptionsOf } from "./drivers.ts";
import type { World } from "./world.ts";

// Takes a lease with a plugin's manager, hands it over to a child, prints the child's pid and ends without giving anything back.
const [plugin, lockspace, runtimeDir, hostId] = Deno.args as [string, string, string, string];
const world = { lockspace, runtimeDir, hostId, directory: runtimeDir } as World;
const manager = (await loadPlugin(plugin, driverConfigOf(world)))
  .newManager("domain", "start", managerOptionsOf(world));
manager.setParameter("name", "vm1");
manager.registerResource("lease", "cluster:db", "exclusive");
await manager.acquireObject();
manager.handOver();
const streams = { stdin: "null", stdout: "null", stderr: "null" } as const;
const heir = new Deno.Command("sleep", { args: ["60"], ...streams }).spawn();
console.log(heir.pid);
Deno.exit(0);
