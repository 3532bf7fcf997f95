import type { HostView, ObservedGuest } from "../manager/guest_view.ts";
import { failure, type Judgement, ok, warning } from "./finding.ts";

/** pidfd_getfd(2) came with this version. */
const OLDEST_KERNEL = [5, 6] as const;

/** Whether a kernel has the calls that operations on running guests need. `release` as uname -r prints it. */
export function judgeKernel(release: string): Judgement {
  const match = /^(\d+)\.(\d+)/.exec(release);
  if (match === null) {
    return warning(`Linux "${release}": its version cannot be read; 5.6 or later is needed`);
  }
  const [major, minor] = [Number(match[1]), Number(match[2])];
  const isNewEnough = major > OLDEST_KERNEL[0] || (major === OLDEST_KERNEL[0] && minor >= OLDEST_KERNEL[1]);
  return isNewEnough
    ? ok(`Linux ${release}`)
    : failure(`Linux ${release} has no pidfd_getfd; 5.6 or later is needed: upgrade the kernel`);
}

/** What was tried of pidfd_getfd(2), and what decides whether it may be done to guests that others started. */
export interface PidfdFacts {
  /** On a child of our own: it worked, or the reason why not. */
  trial: { outcome: "ok" } | { outcome: "refused"; reason: string };
  /** kernel.yama.ptrace_scope, 0 to 3; undefined without that security module. */
  ptraceScope: number | undefined;
  /** Whether we have CAP_SYS_PTRACE, which scope 1 and 2 let pass. */
  ptraceCapability: "present" | "absent";
}

/** Whether we can steer the descriptors of guests. See ptrace(2), "Ptrace access mode checking", and its Yama part. */
export function judgePidfd({ trial, ptraceScope, ptraceCapability }: PidfdFacts): Judgement {
  const scope = ptraceScope === undefined ? "no Yama" : `kernel.yama.ptrace_scope ${ptraceScope}`;
  if (trial.outcome === "refused") {
    return failure(
      `pidfd_getfd on a child of our own: ${trial.reason} (${scope}, CAP_SYS_PTRACE ${ptraceCapability}); set kernel.yama.ptrace_scope to 0, add CAP_SYS_PTRACE, or allow the call in the container's seccomp profile`,
    );
  }
  if ((ptraceScope ?? 0) >= 1 && ptraceCapability === "absent") {
    return warning(
      `pidfd_getfd works on children of our own only (${scope} without CAP_SYS_PTRACE): unplugging, pausing and migration of running guests will be refused; add CAP_SYS_PTRACE, or: sysctl kernel.yama.ptrace_scope=0`,
    );
  }
  return ok(`pidfd_getfd works (${scope}, CAP_SYS_PTRACE ${ptraceCapability})`);
}

/** Descriptors that a disk's locks take (two identities, two slots each), the guest's own lease, and QEMU at least. */
const PER_DISK = 4;
const PER_GUEST = 2;
const FOR_QEMU = 64;
const FEW_DISKS = 16;

/** Whether the limit on open descriptors leaves room for locks. Undefined: no limit. */
export function judgeDescriptorLimit(limit: number | undefined): Judgement {
  if (limit === undefined) return ok("no limit on open descriptors");
  const disks = Math.floor((limit - PER_GUEST - FOR_QEMU) / PER_DISK);
  if (disks < 1) {
    return failure(
      `the limit of ${limit} open descriptors leaves no room for locks; raise it: ulimit -n 1024`,
    );
  }
  const text = `the limit of ${limit} open descriptors leaves room for the locks of ${disks} disks a guest`;
  return disks < FEW_DISKS
    ? warning(`${text}; raise it: ulimit -n 1024, or LimitNOFILE= in a unit`)
    : ok(text);
}

/** Whether the programs are there that guests and operators usually need. Undefined: not found. */
export function judgeQemu(found: { system: string | undefined; image: string | undefined }): Judgement {
  const missing = [
    found.system === undefined ? "qemu-system-* (or qemu-kvm)" : undefined,
    found.image === undefined ? "qemu-img" : undefined,
  ].filter((name) => name !== undefined);
  if (missing.length === 0) return ok(`${found.system} and ${found.image}`);
  const needs = "guests that are no QEMU do without";
  return warning(`not found on PATH: ${missing.join(", ")}; ${needs}; else install QEMU's packages`);
}

/** What two processes saw of each other's lock: the exit statuses of `flock -n FILE true`. */
export interface ExclusionFacts {
  whileHeld: number;
  afterwards: number;
}

/** Whether a lock of one process keeps a second one out, and only as long as it is held. */
export function judgeExclusion(
  facts: ExclusionFacts | "no-flock-program",
  reach: "host" | "network" = "host",
): Judgement {
  if (facts === "no-flock-program") {
    return warning("not tried, since flock(1) is not found on PATH; install util-linux");
  }
  const remedy = "the filesystem's locks cannot be relied on: choose another one for the lockspace";
  if (facts.whileHeld === 0) return failure(`a second process got a lock that the first one held; ${remedy}`);
  if (facts.whileHeld !== 1) return failure(`a second process could not ask for a lock; ${remedy}`);
  if (facts.afterwards !== 0) {
    return failure(`a second process was refused after the lock was given back; ${remedy}`);
  }
  return ok(
    reach === "host"
      ? "two processes exclude each other"
      : "two processes of this host exclude each other; whether hosts do, only a try on two of them tells",
  );
}

/** A process that holds locks of which no record of this host speaks. */
export interface Stray {
  pid: number;
  command: string | undefined;
}

/** Whether the guests' records agree with the locks that the kernel shows. */
export function judgeGuests({ guests, damaged, fault }: HostView, strays: readonly Stray[] = []): Judgement {
  const faults = [
    ...(fault === undefined ? [] : [`the locks of guests cannot be asked for: ${fault.message}`]),
    ...damaged.map(({ file, reason }) => `record ${file} cannot be read: ${reason}`),
    ...guests.filter(hasLostLocks).map(lossText),
  ];
  const remarks = strays.map(({ pid, command }) =>
    `process ${pid} (${command ?? "ended"}) holds locks of which no record speaks`
  );
  const text = [...faults, ...remarks].join("; ");
  if (faults.length > 0) return failure(`${text}; see: lockvisor status, lockvisor attach`);
  const [cut] = guests.filter(({ view, migration }) => view.state === "stopped" && migration !== undefined);
  if (cut !== undefined) {
    return warning(
      `guest "${cut.view.name}" has ended in the middle of a migration; bring that to its end: lockvisor migrate cleanup`,
    );
  }
  if (remarks.length > 0) return warning(`${text}; have the record made again: lockvisor attach`);
  if (guests.length === 0) return ok("none runs");
  const without = guests.filter(({ view }) =>
    view.resources.some(({ unprotected }) => unprotected !== undefined)
  );
  if (without.length > 0) {
    const names = without.map(({ view }) => `"${view.name}"`).join(", ");
    return warning(
      `${names} without a lock that somebody else had; see: lockvisor status`,
    );
  }
  const hidden = guests.filter(({ locks }) => locks.unknown > 0);
  const count = `${guests.length} ${guests.length === 1 ? "guest" : "guests"}`;
  const names = hidden.map(({ view }) => `"${view.name}"`).join(", ");
  return hidden.length === 0 ? ok(`${count}, none has lost a lock`) : warning(
    `${count}, none is known to have lost a lock; of ${names} it cannot be known for certain: the locks are held, but this filesystem does not show by whom`,
  );
}

/** What a pause gave up is not lost. */
function hasLostLocks({ view, locks }: ObservedGuest): boolean {
  return view.state === "lock-lost" || locks.lost > 0;
}

function lossText({ view: { name, pid, state }, locks: { held, unknown, total } }: ObservedGuest): string {
  const doubt = unknown === 0 ? "" : `, ${unknown} more are not shown`;
  return `guest "${name}" (pid ${pid}) is ${state} and holds ${held} of its ${total} locks${doubt}`;
}
