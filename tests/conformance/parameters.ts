import assert from "node:assert/strict";
import { loadPlugin } from "../../lib/manager/plugin.ts";
import { driverConfigOf, managerOptionsOf } from "../support/drivers.ts";
import { refusal } from "../support/refusal.ts";
import { World } from "../support/world.ts";
import type { Candidate } from "./candidate.ts";

const UUID = "b1111111-2222-4333-8444-555555555555";

const WRONG_PARAMETERS: [string, unknown, RegExp][] = [
  ["colour", "red", /setParameter: unknown parameter "colour"; there are: id, uuid, name/],
  ["__proto__", "x", /unknown parameter "__proto__"/],
  ["toString", "x", /unknown parameter "toString"/],
  ["", "x", /unknown parameter ""/],
  ["name", 7, /name 7 is not 1 to 255 printable characters/],
  ["name", "", /name "" is not/],
  ["name", "a/b", /name "a\/b" is not/],
  ["name", "a\nb", /name "a\\nb" is not/],
  ["name", "x".repeat(256), /name "x{80}…" is not/],
  ["name", null, /name null is not/],
  ["uuid", "short", /"short" is not a UUID/],
  ["uuid", 7, /uuid 7 is not a UUID/],
  ["uuid", "00000000-0000-0000-0000-000000000000", /nil UUID/],
  ["id", "", /id "" is not/],
  ["id", 7, /id 7 is not/],
  ["pid", 0, /pid 0 is not a whole number above 0/],
  ["pid", 1.5, /pid 1.5 is not/],
  ["pid", "7", /pid "7" is not/],
  ["uri", "not a uri", /uri "not a uri" is not a URI/],
  ["qmp", "", /qmp "" is not the path of a unix socket/],
  ["qmp", "a\0b", /qmp .* is not the path/],
  ["on-lock-failure", "explode", /on-lock-failure "explode" is not pause, kill or ignore/],
  ["command", "sleep 60", /command "sleep 60" is not a list of words/],
  ["command", ["sleep", 60], /command .* is not a list of words/],
];

const WRONG_RESOURCES: [unknown, unknown, unknown, RegExp][] = [
  ["floppy", "/dev/zero", "exclusive", /registerResource: .*"floppy"/],
  ["disk", "a", "writable", /registerResource: .*"writable"/],
  ["disk", "a", undefined, /registerResource: .*access/],
  ["disk", 7, "exclusive", /registerResource: .*7/],
  ["disk", "", "exclusive", /disk "" has no path/],
  ["lease", "cluster", "exclusive", /lease "cluster" has no colon/],
];

/** Who a guest is and what it uses: checked when it is said. */
export function testParameters({ definition: { name }, install }: Candidate): void {
  Deno.test(`${name}: wrong parameters are refused by name, and may be corrected`, async () => {
    await using world = await World.create();
    const plugin = await loadPlugin(await install(world), driverConfigOf(world));
    await using manager = plugin.newManager("domain", "start", managerOptionsOf(world));
    for (const [parameter, value, says] of WRONG_PARAMETERS) {
      const code = await refusal(() => manager.setParameter(parameter as "name", value as string), says);
      assert.equal(code, "usage", parameter);
    }
    assert.equal(await refusal(() => manager.acquireObject(), /the guest has no name/), "usage");
    manager.setParameter("name", "vm1");
    manager.setParameter("uuid", UUID.toUpperCase());
    manager.setParameter("pid", Deno.pid);
    manager.setParameter("uri", "qemu+ssh://hv2/system");
    for (const parameter of ["name", "uuid"] as const) {
      const twice = () => manager.setParameter(parameter, parameter === "name" ? "vm2" : UUID);
      assert.equal(
        await refusal(twice, new RegExp(`setParameter: parameter "${parameter}" is set already`)),
        "usage",
      );
    }
    await manager.acquireObject();
    const [entry] = managerOptionsOf(world).store.list();
    assert.ok(entry?.kind === "record");
    assert.deepEqual([entry.record.name, entry.record.uuid], ["vm1", UUID]);
  });

  Deno.test(`${name}: wrong resources are refused, and nothing of them is kept`, async () => {
    await using world = await World.create();
    await world.disk("a");
    const plugin = await loadPlugin(await install(world), driverConfigOf(world));
    await using manager = plugin.newManager("domain", "start", managerOptionsOf(world));
    manager.setParameter("name", "vm1");
    for (const [type, resource, access, says] of WRONG_RESOURCES) {
      const register = () => manager.registerResource(type as "disk", resource as string, access as "shared");
      assert.equal(await refusal(register, says), "usage");
    }
    const missing = () => manager.registerResource("disk", "none", "exclusive");
    assert.equal(await refusal(missing, /disk \/.*\/none does not exist/), "data");
    assert.deepEqual(manager.supervisorArgs().filter((word) => /^--(disk|lease)=/.test(word)), []);
    manager.registerResource("lease", "cluster:db", "exclusive");
    assert.equal(manager.supervisorArgs().filter((word) => /^--(disk|lease)=/.test(word)).length, 1);
  });
}
