import type { DriverConfig } from "../../lib/driver/contract.ts";
import { initLockspace } from "../../lib/lockspace/lockspace.ts";
import { GuestStore } from "../../lib/manager/guest_store.ts";
import { loadPlugin } from "../../lib/manager/plugin.ts";

/**
 * Acquire and release inside one process, for guests with 1, 10 and 100 disks: two keys a disk and one for the
 * guest, two slots each. Beside it the bare system calls: open, flock and close of as many files.
 */
const directory = Deno.realPathSync(Deno.makeTempDirSync({ prefix: "lockvisor-bench-" }));
globalThis.addEventListener("unload", () => Deno.removeSync(directory, { recursive: true }));
const effectiveUid = Deno.uid() ?? 0;
initLockspace(`${directory}/lockspace`, effectiveUid);

const config: DriverConfig = {
  lockspace: { path: `${directory}/lockspace`, origin: "configured" },
  host: { id: "bench", name: "bench" },
  readonlyDisks: "lock",
  sharedStorage: "ignore",
  storage: [],
  effectiveUid,
  warn() {},
};
const plugin = await loadPlugin("sync-manager", config);

for (const count of [1, 10, 100]) {
  const disks = Array.from({ length: count }, (_, number) => `${directory}/disk-${count}-${number}`);
  for (const disk of disks) Deno.writeTextFileSync(disk, "");
  const files = Array.from(
    { length: (2 * count + 1) * 2 },
    (_, number) => `${directory}/file-${count}-${number}`,
  );
  for (const file of files) Deno.writeTextFileSync(file, "");
  const group = `${count} disk(s)`;

  Deno.bench(`open, flock, close of ${files.length} files`, { group, baseline: true }, () => {
    const open = files.map((file) => {
      const handle = Deno.openSync(file, { read: true, write: true });
      if (!handle.tryLockSync(true)) throw new Error("locked");
      return handle;
    });
    for (const handle of open) handle.close();
  });

  Deno.bench(`acquire and release ${group}`, { group }, async (bench) => {
    const store = new GuestStore(`${directory}/run`);
    const manager = plugin.newManager("domain", "start", { store, cwd: directory });
    manager.setParameter("name", `guest-${count}`);
    for (const disk of disks) manager.registerResource("disk", disk, "exclusive");
    bench.start();
    await manager.acquireObject();
    await manager.shutdown();
    bench.end();
    manager.free();
  });
}
