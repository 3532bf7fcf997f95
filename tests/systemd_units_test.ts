import assert from "node:assert/strict";
import { configureGuest, guestOn, guestRunning, installOn } from "./support/installation.ts";
import { SHARED, SystemdHosts } from "./support/systemd_hosts.ts";
import { until } from "./support/until.ts";

/** Runs a script of the test's own in the place of the agent, within all bounds of its unit. */
const STAND_IN = `[Service]
Type=exec
WatchdogSec=0
Restart=no
ExecStart=
ExecStart=/bin/sh ${SHARED}/stand-in
`;

const DONE = `${SHARED}/done`;

/** Each line as the agent would do it, with its exit status into a file. */
function standIn(commands: readonly string[]): string {
  const lines = commands.map((command) =>
    `${command} >>${SHARED}/output 2>&1; echo "$? ${command}" >>${DONE}`
  );
  return [...lines, `echo end >>${DONE}`, "exec sleep 600", ""].join("\n");
}

Deno.test("units: systemd finds nothing to say against them", async () => {
  await using hosts = await SystemdHosts.boot("first only");
  const { one: host } = hosts;
  await installOn(hosts, [host]);
  const units = ["lockvisor.service", "lockvisor-guest@vm1.service"];
  const { code, stdout, stderr } = await host.run(["systemd-analyze", "verify", "--man=no", ...units]);
  assert.deepEqual({ code, stdout, stderr }, { code: 0, stdout: "", stderr: "" });
});

Deno.test("units: the agent's bounds leave it what its work takes, for guests of other users too", async () => {
  await using hosts = await SystemdHosts.boot("first only");
  const { one: host } = hosts;
  await installOn(hosts, [host]);
  await host.must(["useradd", "--system", "--create-home", "--home-dir=/home/guest", "guest"]);
  await host.writeFile("/home/guest/private/late.img", "a disk");
  await host.must(["chown", "-R", "guest:", "/home/guest"]);
  await host.must(["chmod", "0700", "/home/guest/private"]);
  await host.writeFile("/images/a.img", "a disk");
  await host.writeFile("/images/b.img", "a disk");
  const command = "/usr/bin/setpriv --reuid=guest --regid=guest --init-groups /usr/bin/sleep 600";
  await configureGuest(host, { name: "vm1", locks: "--disk /images/a.img --disk /images/b.img", command });
  await configureGuest(host, { name: "vm2", locks: "", command });
  await host.writeFile("/etc/systemd/system/lockvisor.service.d/stand-in.conf", STAND_IN);
  const allowed = [
    "lockvisor doctor",
    "lockvisor acquire vm1 --disk /home/guest/private/late.img", // starts a holder
    "lockvisor release vm1 --disk /images/a.img", // unlocks in the guest's own descriptors
    "lockvisor pause vm1 --release",
    "lockvisor resume vm1",
    "lockvisor attach",
    "lockvisor gc",
    "lockvisor stop vm2", // by signals
    `chown root:guest ${SHARED}/stand-in`, // as the socket gets its group
  ];
  const forbidden = [
    "mount -t tmpfs none /mnt",
    "unshare --net true",
    "setpriv --reuid=guest --clear-groups true",
    "chmod u+s /images/a.img",
    "mknod /images/null c 1 3",
  ];
  await host.writeFile(`${SHARED}/stand-in`, standIn([...allowed, ...forbidden]));
  await host.must(["systemctl", "daemon-reload"]);
  await host.must(["systemctl", "mask", "--quiet", "--runtime", "lockvisor"]); // the guest would start it
  await host.must(["systemctl", "start", "lockvisor-guest@vm1", "lockvisor-guest@vm2"]);
  const pid = await guestRunning(host, "vm1");
  await guestRunning(host, "vm2");
  await host.must(["systemctl", "unmask", "--quiet", "--runtime", "lockvisor"]);
  await host.must(["systemctl", "start", "lockvisor"]);
  await until("the stand-in is done", async () => (await host.run(["grep", "-qx", "end", DONE])).code === 0);
  const report = await host.must(["cat", DONE, `${SHARED}/output`]);
  for (const command of allowed) assert.ok(report.split("\n").includes(`0 ${command}`), report);
  for (const command of forbidden) assert.ok(!report.split("\n").includes(`0 ${command}`), report);
  assert.deepEqual(await guestOn(host, "vm1"), { state: "running", pid, held: 5, total: 5 });

  // The agent sees the host's mounts, and so do its holders.
  const agent = (await host.must(["systemctl", "show", "--value", "--property=MainPID", "lockvisor"])).trim();
  const namespace = (of: string) => host.must(["readlink", `/proc/${of}/ns/mnt`]);
  assert.equal(await namespace(agent), await namespace("1"));
  const group = "/sys/fs/cgroup/unified/system.slice/lockvisor.service/cgroup.procs";
  const members = async () => {
    const paths = `${group} ${group.replace("/unified", "")}`;
    return (await host.run(["sh", "-c", `cat ${paths} 2>/dev/null`])).stdout.trim().split("\n");
  };
  const [holder = "", ...more] = (await members()).filter((member) => member !== agent);
  assert.deepEqual(more, []);
  assert.match(await host.must(["cat", `/proc/${holder}/comm`]), /^lockvisor-hold$/m);

  // A stop takes the agent alone; a start finds the holder there and leaves it alone.
  await host.must(["systemctl", "stop", "lockvisor"]);
  assert.deepEqual(await members(), [holder]);
  await host.writeFile(`${SHARED}/stand-in`, standIn([]));
  await host.must(["systemctl", "start", "lockvisor"]);
  assert.ok((await members()).includes(holder));
  assert.deepEqual(await guestOn(host, "vm1"), { state: "running", pid, held: 5, total: 5 });
  assert.equal(await host.must(["stat", "-c", "%a %U", "/run/lockvisor"]), "711 root\n");

  // The guest's unit does not depend on the agent's, whatever becomes of it.
  await host.must(["systemctl", "kill", "--signal=KILL", "--kill-whom=main", "lockvisor"]);
  assert.deepEqual(await guestOn(host, "vm1"), { state: "running", pid, held: 5, total: 5 });
  await host.must(["systemctl", "stop", "lockvisor-guest@vm1"]);
  await until(
    "the holder has ended with its guest",
    async () => (await host.run(["test", "-e", `/proc/${holder}`])).code !== 0,
  );
});
