import assert from "node:assert/strict";
import { configureGuest, guestOn, guestRunning, installOn } from "./support/installation.ts";
import { countingCommand, countingDisk, countOn } from "./support/moving_guest.ts";
import { letIn, ONE, OTHER } from "./support/ssh_hosts.ts";
import type { SystemdHost } from "./support/systemd_host.ts";
import { SHARED, SystemdHosts } from "./support/systemd_hosts.ts";
import { until } from "./support/until.ts";

const CONFIGURATION = `lockspace = "${SHARED}/lockspace"
[[storage]]
path = "${SHARED}/images"
id = "san1"
`;

const DISK = `${SHARED}/images/vm1.img`;
const QMP = "/run/vm1.qmp";

/** Two hosts that may log into each other as root, with a guest on the first. */
async function hostsWithGuest(): Promise<{ hosts: SystemdHosts; disk: string }> {
  const hosts = await SystemdHosts.boot("both", "with-ssh-and-qemu");
  try {
    const { one, other } = hosts;
    await installOn(hosts, [one, other], CONFIGURATION);
    await one.must(["lockvisor", "init", `${SHARED}/lockspace`]);
    await Deno.mkdir(`${hosts.shared}/images`);
    const disk = await countingDisk(`${hosts.shared}/images/vm1.img`);
    await letIn(one, other);
    await letIn(other, one);
    const command = countingCommand(DISK, QMP).join(" ").replace("qemu-system", "/usr/bin/qemu-system");
    await configureGuest(one, { name: "vm1", locks: `--disk ${DISK} --qmp ${QMP}`, command });
    await one.must(["systemctl", "start", "lockvisor-guest@vm1"]);
    await guestRunning(one, "vm1");
    await until("the guest counts", async () => await countOn(disk) > 1);
    return { hosts, disk };
  } catch (error) {
    await hosts[Symbol.asyncDispose]();
    throw error;
  }
}

async function livesOn(host: SystemdHost, other: SystemdHost, disk: string): Promise<number> {
  assert.equal(await guestOn(other, "vm1"), undefined);
  const guest = await guestOn(host, "vm1");
  assert.equal(guest?.state, "running");
  assert.equal(guest.held, guest.total);
  const before = await countOn(disk);
  await until("the guest counts on", async () => await countOn(disk) > before);
  for (const each of [host, other]) {
    assert.equal(
      (await each.run(["lockvisor", "run", "--name", "vm2", "--disk", DISK, "--", "true"])).code,
      75,
    );
  }
  return guest.pid;
}

Deno.test("migrate run: over ssh a guest moves from one host with systemd to another, and back", async () => {
  const { hosts, disk } = await hostsWithGuest();
  await using _ = hosts;
  const { one, other } = hosts;
  const moved = await one.must(["lockvisor", "migrate", "run", "vm1", "--to", `ssh://root@${OTHER}`]);
  assert.match(
    moved,
    /^guest "vm1" runs at ssh:\/\/root@10\.99\.0\.2 \(pid \d+\); it stood still for \d+ ms\n$/,
  );
  const pid = await livesOn(other, one, disk);
  const state = await one.must([
    "systemctl",
    "show",
    "--value",
    "--property=ActiveState",
    "lockvisor-guest@vm1",
  ]);
  assert.equal(state, "inactive\n", "the unit here has ended, and not failed");
  // The session through which it came has ended; its guest has not.
  assert.equal((await other.run(["pgrep", "-f", "migrate receive"])).code, 1);
  assert.equal((await other.run(["test", "-e", `/proc/${pid}`])).code, 0);

  const counted = await countOn(disk);
  await other.must(["lockvisor", "migrate", "run", "vm1", "--to", `ssh://${ONE}`, "--bandwidth", "1M"]);
  await livesOn(one, other, disk);
  assert.ok(await countOn(disk) > counted);
  for (const host of [one, other]) {
    assert.equal(await host.must(["find", "/tmp", "-name", "lockvisor-migrate-*"]), "");
  }
});

Deno.test("migrate run: over ssh, what is refused there is told here, and Ctrl-C leaves nothing there", async () => {
  const { hosts, disk } = await hostsWithGuest();
  await using _ = hosts;
  const { one, other } = hosts;
  const run = ["lockvisor", "migrate", "run", "vm1", "--to"] as const;
  const noProgram = await one.run([...run, `ssh://${OTHER}?program=lockvisor-2`]);
  assert.equal(noProgram.code, 69);
  assert.match(noProgram.stderr, /it has ended \(exit status 127\): .*lockvisor-2: .*not found\n$/);
  const noUser = await one.run([...run, `ssh://nobody@${OTHER}`]);
  assert.equal(noUser.code, 69);
  assert.match(noUser.stderr, /it has ended \(exit status 255\): .*Permission denied/);
  await other.writeFile("/etc/ssh/sshd_config.d/no-forwarding.conf", "AllowStreamLocalForwarding no\n");
  await other.must(["systemctl", "reload", "ssh"]);
  const noForwarding = await one.run([...run, `ssh://${OTHER}`]);
  assert.equal(noForwarding.code, 69);
  assert.match(
    noForwarding.stderr,
    /vm1" stays here, with its locks: .*open failed.*AllowStreamLocalForwarding/,
  );
  await livesOn(one, other, disk);
  await other.must(["rm", "/etc/ssh/sshd_config.d/no-forwarding.conf"]);
  await other.must(["systemctl", "reload", "ssh"]);

  const script = `lockvisor migrate run vm1 --to ssh://${OTHER} --bandwidth 60K & pid=$!
    until lockvisor migrate status >/dev/null && ssh ${OTHER} pgrep -f incoming >/dev/null; do sleep 0.05; done
    kill -TERM $pid; wait $pid`;
  const stopped = await one.run(["bash", "-c", script]);
  assert.equal(stopped.code, 143, stopped.stderr);
  assert.match(stopped.stderr, /gave up on SIGTERM; guest "vm1" stays here, with its locks\n$/);
  await livesOn(one, other, disk);
  assert.equal((await other.run(["pgrep", "qemu"])).code, 1);
});

Deno.test("migrate run: a network that is cut: the guest stays here, and its QEMU there ends by itself", async () => {
  const { hosts, disk } = await hostsWithGuest();
  await using _ = hosts;
  const { one, other } = hosts;
  const running = one.run([
    "lockvisor",
    "migrate",
    "run",
    "vm1",
    "--to",
    `ssh://${OTHER}`,
    "--bandwidth",
    "60K",
  ]);
  await until("QEMU waits there", async () => (await other.run(["pgrep", "-f", "incoming"])).code === 0);
  await until("it is sent", async () => (await one.must(["lockvisor", "migrate", "status"])).includes("out"));
  await one.must(["ip", "link", "set", "host0", "down"]);
  const { code, stderr } = await running;
  assert.ok(code === 69 || code === 75, `${code}: ${stderr}`);
  await until(
    "the receiver has given up",
    async () => (await other.run(["pgrep", "qemu"])).code === 1,
    60_000,
  );
  assert.equal((await one.run(["lockvisor", "migrate", "cancel", "vm1"])).code, 0, stderr);
  await livesOn(one, other, disk);
  await one.must(["ip", "link", "set", "host0", "up"]);
});
