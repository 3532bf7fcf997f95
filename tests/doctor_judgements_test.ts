import assert from "node:assert/strict";
import { LockvisorError } from "../lib/errors.ts";
import { judgeFilesystem } from "../lib/doctor/filesystem.ts";
import type { Verdict } from "../lib/doctor/finding.ts";
import {
  judgeDescriptorLimit,
  judgeExclusion,
  judgeGuests,
  judgeKernel,
  judgePidfd,
  judgeQemu,
} from "../lib/doctor/judgements.ts";
import { findProgram, ptraceCapability } from "../lib/doctor/system_facts.ts";
import type { ObservedGuest } from "../lib/manager/guest_view.ts";

const MOUNTS: [fstype: string, options: string, verdict: Verdict, says: RegExp][] = [
  ["ext4", "rw,relatime", "ok", /no other host sees it/],
  ["xfs", "rw", "ok", /processes of this host/],
  ["btrfs", "rw,subvol=/@", "ok", /processes of this host/],
  ["zfs", "rw", "ok", /processes of this host/],
  ["tmpfs", "rw", "warning", /generations are lost when it restarts/],
  ["ramfs", "rw", "warning", /generations are lost/],
  ["overlay", "rw,lowerdir=/l,upperdir=/u", "warning", /bind-mount a directory of the host/],
  ["nfs4", "rw,vers=4.2,hard,local_lock=none", "ok", /^NFS 4\.2: the server keeps flock/],
  ["nfs4", "rw,vers=4.0,local_lock=none", "ok", /^NFS 4\.0/],
  ["nfs4", "rw", "ok", /^NFS 4: /],
  ["nfs4", "rw,vers=4.2,local_lock=flock", "failure", /local_lock=flock: flock stays on this host/],
  ["nfs", "rw,vers=3,local_lock=none", "warning", /^NFS 3: .*lockd and statd.*mount it as NFS 4\.2/],
  ["nfs", "rw,vers=3,nolock,local_lock=all", "failure", /^NFS 3 with nolock: .*mount it without nolock/],
  ["nfs", "rw,vers=3,local_lock=all", "failure", /local_lock=all/],
  ["nfs", "rw,vers=3,local_lock=posix", "warning", /^NFS 3: /],
  ["nfs", "rw", "warning", /^NFS 3: /],
  ["cifs", "rw,vers=3.1.1", "warning", /a lost connection drops in silence/],
  ["cifs", "rw,nobrl", "failure", /mount it without nobrl/],
  ["smb3", "rw", "warning", /^smb3/],
  ["gfs2", "rw,lockproto=lock_dlm", "ok", /DLM/],
  ["gfs2", "rw,localflocks", "failure", /without localflocks/],
  ["gfs2", "rw,lockproto=lock_nolock", "failure", /single host/],
  ["ocfs2", "rw,heartbeat=local", "ok", /cluster/],
  ["ocfs2", "rw,localflocks", "failure", /without localflocks/],
  ["ocfs2", "rw,heartbeat=none", "failure", /single host/],
  ["ceph", "rw,name=admin", "ok", /fence/],
  ["lustre", "rw,flock", "ok", /all hosts/],
  ["lustre", "rw,localflock", "failure", /mount it with flock/],
  ["lustre", "rw,noflock", "failure", /no flock/],
  ["lustre", "rw", "warning", /mount it with flock/],
  ["fuse.glusterfs", "rw", "warning", /tables do not show.*client daemon.*strict-locks/],
  ["fuse.sshfs", "rw", "failure", /stays on this host/],
  ["fuse.unheard-of", "rw", "warning", /each FUSE program decides/],
  ["fuse", "rw", "warning", /each FUSE program decides/],
  ["fuseblk", "rw", "warning", /each FUSE program decides/],
  ["9p", "rw,trans=virtio", "failure", /grants every lock/],
  ["9p", "rw,trans=tcp", "warning", /many grant every lock/],
  ["virtiofs", "rw", "warning", /inside this virtual machine/],
  ["afs", "rw", "warning", /not known here.*flock -n FILE true/],
  ["constructor", "rw", "ok", /^constructor: /],
];

for (const [fstype, options, verdict, says] of MOUNTS) {
  Deno.test(`doctor, filesystem: ${fstype} ${options} is ${verdict}`, () => {
    const judgement = judgeFilesystem({ fstype, options: options.split(",") });
    assert.equal(judgement.verdict, verdict, judgement.text);
    assert.match(judgement.text, says);
  });
}

Deno.test("doctor, filesystem: a local one that is declared as shared draws a warning", () => {
  const judgement = judgeFilesystem({ fstype: "ext4", options: ["rw"], declared: "shared" });
  assert.equal(judgement.verdict, "warning");
  assert.match(judgement.text, /only what runs on this kernel/);
  const cluster = judgeFilesystem({ fstype: "nfs4", options: ["rw", "vers=4.2"], declared: "shared" });
  assert.equal(cluster.verdict, "ok");
});

Deno.test("doctor, kernel: 5.6 is the first", () => {
  const verdicts = ["4.19.0-27-amd64", "5.5.19", "5.6.0", "5.10.0-33", "6.1", "10.0.1"].map((release) =>
    judgeKernel(release).verdict
  );
  assert.deepEqual(verdicts, ["failure", "failure", "ok", "ok", "ok", "ok"]);
  assert.equal(judgeKernel("strange").verdict, "warning");
});

Deno.test("doctor, running guests: a child of our own proves little under Yama", () => {
  const works = { outcome: "ok" } as const;
  const refused = { outcome: "refused", reason: "not permitted" } as const;
  const table = [
    [works, undefined, "absent", "ok"],
    [works, 0, "absent", "ok"],
    [works, 1, "present", "ok"],
    [works, 1, "absent", "warning"],
    [works, 2, "absent", "warning"],
    [refused, undefined, "present", "failure"],
    [refused, 3, "present", "failure"],
  ] as const;
  for (const [trial, ptraceScope, ptraceCapability, verdict] of table) {
    const judgement = judgePidfd({ trial, ptraceScope, ptraceCapability });
    assert.equal(judgement.verdict, verdict, judgement.text);
    if (verdict !== "ok") assert.match(judgement.text, /ptrace_scope/);
  }
});

Deno.test("doctor, capabilities are read out of /proc/self/status", () => {
  assert.equal(ptraceCapability("Name:\tx\nCapEff:\t000001fffeffffff\n"), "present");
  assert.equal(ptraceCapability("CapEff:\t0000000000080000\n"), "present");
  assert.equal(ptraceCapability("CapEff:\t0000000000000000\n"), "absent");
  assert.equal(ptraceCapability(""), "absent");
});

Deno.test("doctor, descriptors: room for locks", () => {
  const verdicts = [64, 69, 70, 128, 130, 1024, undefined].map((limit) =>
    judgeDescriptorLimit(limit).verdict
  );
  assert.deepEqual(verdicts, ["failure", "failure", "warning", "warning", "ok", "ok", "ok"]);
  assert.match(judgeDescriptorLimit(1024).text, /the locks of 239 disks/);
});

Deno.test("doctor, QEMU: its absence is no failure", () => {
  assert.equal(judgeQemu({ system: "/q", image: "/i" }).verdict, "ok");
  const partly = judgeQemu({ system: "/q", image: undefined });
  assert.equal(partly.verdict, "warning");
  assert.match(partly.text, /^not found on PATH: qemu-img;/);
});

Deno.test("doctor, two processes: only 1 while held and 0 afterwards is exclusion", () => {
  assert.equal(judgeExclusion({ whileHeld: 1, afterwards: 0 }).verdict, "ok");
  assert.equal(judgeExclusion({ whileHeld: 0, afterwards: 0 }).verdict, "failure");
  assert.equal(judgeExclusion({ whileHeld: 1, afterwards: 1 }).verdict, "failure");
  assert.equal(judgeExclusion({ whileHeld: 66, afterwards: 66 }).verdict, "failure");
  assert.equal(judgeExclusion("no-flock-program").verdict, "warning");
  assert.match(
    judgeExclusion({ whileHeld: 1, afterwards: 0 }, "network").text,
    /of this host .* on two of them/,
  );
});

Deno.test("doctor, guests: what is recorded must be held, but for what a pause gave up", () => {
  const guest = (state: string, held: number, unknown: number, lost = 3 - held - unknown): ObservedGuest =>
    ({
      view: { name: "vm1", pid: 7, state, resources: [] },
      locks: { held, unknown, lost, total: 3 },
    }) as unknown as ObservedGuest;
  const verdict = (...guests: ObservedGuest[]) => judgeGuests({ guests, damaged: [] }).verdict;
  assert.equal(verdict(), "ok");
  assert.equal(verdict(guest("running", 3, 0)), "ok");
  assert.equal(verdict(guest("running", 3, 0), guest("running", 2, 0)), "failure");
  assert.equal(verdict(guest("paused", 1, 0, 0)), "ok");
  assert.equal(verdict(guest("paused", 1, 0, 2)), "failure");
  assert.equal(verdict(guest("lock-lost", 3, 0)), "failure");
  assert.equal(verdict(guest("running", 0, 3)), "warning");
  const { view, ...rest } = guest("running", 3, 0);
  const unprotected = { type: "disk", name: "/a", access: "exclusive", keys: [], locked: false } as const;
  const without = { ...view, resources: [{ ...unprotected, keys: [], unprotected: { holder: null } }] };
  assert.equal(verdict({ ...rest, view: without }), "warning");
  const partly = judgeGuests({ guests: [guest("running", 0, 2)], damaged: [] });
  assert.equal(partly.verdict, "failure");
  assert.match(partly.text, /holds 0 of its 3 locks, 2 more are not shown/);
  const damaged = [{ kind: "damaged", uuid: "u", file: "/f", reason: "it is cut" } as const];
  const judgement = judgeGuests({ guests: [], damaged });
  assert.equal(judgement.verdict, "failure");
  assert.match(judgement.text, /record \/f cannot be read: it is cut.*lockvisor attach/);
});

Deno.test("doctor, guests: a lockspace that does not answer fails, locks without a record draw a warning", () => {
  const fault = new LockvisorError("io", "lockspace /l is cut off");
  const cutOff = judgeGuests({ guests: [], damaged: [], fault });
  assert.equal(cutOff.verdict, "failure");
  assert.match(cutOff.text, /cannot be asked for: lockspace \/l is cut off/);
  const stray = judgeGuests({ guests: [], damaged: [] }, [{ pid: 7, command: "qemu" }]);
  assert.equal(stray.verdict, "warning");
  assert.match(stray.text, /process 7 \(qemu\) holds locks of which no record speaks; .*lockvisor attach/);
});

Deno.test("doctor, programs are looked for folder by folder", async () => {
  const folder = await Deno.makeTempDir();
  await Deno.writeTextFile(`${folder}/tool`, "");
  assert.equal(findProgram(`:/nowhere:${folder}`, /^tool$/), undefined, "not executable");
  await Deno.chmod(`${folder}/tool`, 0o755);
  assert.equal(findProgram(`:/nowhere:${folder}`, /^tool$/), `${folder}/tool`);
  await Deno.remove(folder, { recursive: true });
});
