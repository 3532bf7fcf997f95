import assert from "node:assert/strict";
import { World } from "./support/world.ts";

Deno.test("V8 takes the code that is built in, for a start as for other commands", async () => {
  await using world = await World.create();
  const disk = await world.disk("disk");
  const env = { LOCKVISOR_DEBUG: "1" };
  const qemu = `${world.directory}/qemu-system-true`;
  await Deno.symlink("/usr/bin/true", qemu);
  const starts = [
    ["run", "--name", "vm1", "--disk", disk, "--", "true"],
    ["run", "--", qemu, "-name", "vm1", "-drive", `file=${disk},format=raw`],
  ];
  for (const args of [["version"], ...starts]) {
    const { code, stderr } = await world.run(args, { env });
    assert.equal(stderr, "");
    assert.equal(code, 0);
  }
});
