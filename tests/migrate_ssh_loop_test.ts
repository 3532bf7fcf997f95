import assert from "node:assert/strict";
import { CountingDisk } from "./support/counting_disk.ts";
import { configureGuest, guestOn, guestRunning, installOn } from "./support/installation.ts";
import { letIn, ONE, OTHER } from "./support/ssh_hosts.ts";
import type { SystemdHost } from "./support/systemd_host.ts";
import { SHARED, SystemdHosts } from "./support/systemd_hosts.ts";
import { until } from "./support/until.ts";

/** How often the guest moves. `deno task soak ssh` has it move more often. */
const MOVES = Number(Deno.env.get("LOCKVISOR_SSH_MOVES") ?? 4);

const CONFIGURATION = `lockspace = "${SHARED}/lockspace"
[[storage]]
path = "${SHARED}/images"
id = "san1"
`;
const DISK = `${SHARED}/images/vm1.qcow2`;
const MARK = `${SHARED}/won`;
const QMP = "/run/vm1.qmp";

/** Tries without end to start a guest on the same disk, and counts the refusals. What starts leaves a mark. */
const THIEF = `n=0
while [ -e ${SHARED}/trying ]; do
  lockvisor run --name "thief-$0" --disk ${DISK} -- sh -c 'echo >> ${MARK}' 2>/dev/null
  [ $? = 75 ] && n=$((n+1)) || echo "$?" >> ${SHARED}/faults
  echo $n > "${SHARED}/refused-$0"
done`;

async function steal(host: SystemdHost, name: string): Promise<void> {
  await host.must(["systemd-run", "--quiet", "--unit=thief", "sh", "-c", THIEF, name]);
}

function qemuCommand(): string {
  return [
    "/usr/bin/qemu-system-x86_64",
    ..."-accel tcg -M pc -nodefaults -no-user-config -display none -m 16".split(" "),
    "-blockdev",
    `driver=qcow2,node-name=d0,file.driver=file,file.filename=${DISK}`,
    "-device",
    "virtio-blk-pci,drive=d0",
    "-qmp",
    `unix:${QMP},server=on,wait=off`,
  ].join(" ");
}

Deno.test(`migrate run: a guest that writes moves ${MOVES} times by ssh between hosts with agents, and who else wants its disk never gets it`, async () => {
  await using hosts = await SystemdHosts.boot("both", "with-ssh-and-qemu");
  const { one, other, shared } = hosts;
  await installOn(hosts, [one, other], CONFIGURATION);
  await one.must(["lockvisor", "init", `${SHARED}/lockspace`]);
  await Deno.mkdir(`${shared}/images`);
  const disk = await CountingDisk.create(`${shared}/images/vm1.qcow2`);
  await letIn(one, other);
  await letIn(other, one);
  const locks = `--disk ${DISK} --qmp ${QMP}`;
  await configureGuest(one, { name: "vm1", locks, command: qemuCommand() });
  await one.must(["systemctl", "start", "lockvisor-guest@vm1"]);
  await guestRunning(one, "vm1");
  await until("the guest counts", () => disk.count() > 1);
  await Deno.writeTextFile(`${shared}/trying`, "");
  await steal(one, "one");
  await steal(other, "other");

  let counted = disk.count();
  for (let move = 0; move < MOVES; move++) {
    const [from, to, address] = move % 2 === 0 ? [one, other, OTHER] : [other, one, ONE];
    await from.must(["lockvisor", "migrate", "run", "vm1", "--to", `ssh://root@${address}`]);
    assert.equal(await guestOn(from, "vm1"), undefined, `move ${move}`);
    const guest = await guestOn(to, "vm1");
    assert.deepEqual([guest?.state, guest?.held], ["running", guest?.total], `move ${move}`);
    await until("the guest counts on", () => disk.count() > counted);
    counted = disk.count();
  }
  await Deno.remove(`${shared}/trying`);
  for (const [host, name] of [[one, "one"], [other, "other"]] as const) {
    await until(
      "nobody tries any more",
      async () => (await host.run(["systemctl", "is-active", "thief"])).code !== 0,
    );
    const refused = Number(await Deno.readTextFile(`${shared}/refused-${name}`));
    assert.ok(refused > MOVES, `only ${refused} starts were refused on host ${name}`);
  }
  for (const file of ["won", "faults"]) {
    await assert.rejects(
      Deno.stat(`${shared}/${file}`),
      Deno.errors.NotFound,
      "somebody else has started, or failed otherwise",
    );
  }
  await (MOVES % 2 === 0 ? one : other).must(["lockvisor", "stop", "vm1"]);
  assert.equal(await disk.faults(), "");
  assert.ok(disk.count() >= counted, "what was written is there");
  const left = Array.from(Deno.readDirSync(`${shared}/lockspace`), ({ name }) => name)
    .filter((name) => name.endsWith(".d"))
    .flatMap((name) => Array.from(Deno.readDirSync(`${shared}/lockspace/${name}`), (entry) => entry.name));
  assert.deepEqual(
    left.filter((name) => name.endsWith(".migration.json") || name.includes(".incoming.")),
    [],
  );
});
