import type { Guest } from "./guest.ts";
import { qemuCommand } from "./qemu.ts";
import { until } from "./until.ts";
import type { World } from "./world.ts";

/** The QEMU guest vm1 on one disk, with a monitor that answers. */
export async function monitoredGuest(world: World, disk: string): Promise<{ guest: Guest; socket: string }> {
  const socket = `${world.directory}/qmp`;
  const command = qemuCommand(disk, { extra: ["-qmp", `unix:${socket},server=on,wait=off`] });
  const args = ["run", "--name", "vm1", "--qmp", socket, "--disk", disk, "--", ...command];
  const guest = await world.startRunning(args);
  await until("the monitor answers", async () => (await world.run(["resume", "vm1"])).code === 0);
  return { guest, socket };
}
