import type { DeclaredStorage } from "../config/settings.ts";
import { LockvisorError } from "../errors.ts";
import type { Driver } from "../driver/contract.ts";
import { directoryStatus, refuseUnsafeDirectory } from "../files/own_directory.ts";
import { mountOf, readMountsAlong } from "../identity/mounts.ts";
import { type Lockspace, type LockspaceLocation, openLockspace } from "../lockspace/lockspace.ts";
import type { GuestStore } from "../manager/guest_store.ts";
import { unrecordedLocks } from "../manager/attach_plan.ts";
import { isLockvisor, observeHost } from "../manager/guest_view.ts";
import { driverNames } from "../manager/registry.ts";
import { commandName } from "../process/process_identity.ts";
import { judgeFilesystem } from "./filesystem.ts";
import { failure, type Finding, finding, type Judgement, ok, warning } from "./finding.ts";
import {
  judgeDescriptorLimit,
  judgeExclusion,
  judgeGuests,
  judgeKernel,
  judgePidfd,
  judgeQemu,
  type Stray,
} from "./judgements.ts";
import { findProgram, ownDescriptorLimit, ownPtraceCapability, ptraceScope } from "./system_facts.ts";
import { tryExclusion, tryPidfd } from "./trials.ts";

/** What an examination looks at. */
export interface Patient {
  lockspace: LockspaceLocation;
  store: GuestStore;
  findDriver(name: string): Driver | undefined;
  effectiveUid: number;
  /** Directories that are declared as the same storage on every host. */
  storage: readonly DeclaredStorage[];
  /** Folders with programs, separated by colons. */
  searchPath: string;
}

/** Everything that can be checked on this host, in the order in which it is shown. Nothing is changed for good. */
export async function examine(patient: Patient): Promise<Finding[]> {
  const lockspace = lookAtLockspace(patient);
  return [
    ...await examineLockspace(lockspace, patient.searchPath),
    finding("runtime directory", await attempt(() => judgeRuntimeDirectory(patient))),
    finding("guests", await attempt(() => judgeHost(patient, lockspace.kind))),
    ...await examineSystem(patient.searchPath),
  ];
}

/** The checks that need neither settings nor a lockspace. */
export async function examineSystem(searchPath: string): Promise<Finding[]> {
  const pidfd = await attempt(async () =>
    judgePidfd({
      trial: await tryPidfd(),
      ptraceScope: ptraceScope(),
      ptraceCapability: ownPtraceCapability(),
    })
  );
  const qemu = judgeQemu({
    system: findProgram(searchPath, new RegExp(`^qemu-system-${Deno.build.arch}$`)) ??
      findProgram(searchPath, /^(qemu-system-.+|qemu-kvm)$/),
    image: findProgram(searchPath, /^qemu-img$/),
  });
  return [
    finding("kernel", judgeKernel(Deno.osRelease())),
    finding("running guests", pidfd),
    finding("descriptors", judgeDescriptorLimit(ownDescriptorLimit())),
    finding("QEMU", qemu),
  ];
}

type Look = { kind: "open"; lockspace: Lockspace } | { kind: "unusable"; judgement: Judgement };

/** Opens the lockspace without making it. */
function lookAtLockspace({ lockspace: location, effectiveUid, storage }: Patient): Look {
  try {
    if (location.origin === "default" && directoryStatus("lockspace", location.path) === undefined) {
      const judgement = warning(`${location.path} does not exist yet; the first start makes it`);
      return { kind: "unusable", judgement };
    }
    return { kind: "open", lockspace: openLockspace(location, effectiveUid, storage) };
  } catch (error) {
    return { kind: "unusable", judgement: asFailure(error) };
  }
}

async function examineLockspace(look: Look, searchPath: string): Promise<Finding[]> {
  if (look.kind === "unusable") return [finding("lockspace", look.judgement)];
  const { lockspace } = look;
  const flockProgram = findProgram(searchPath, /^flock$/);
  const tried = async () => judgeExclusion(await tryExclusion(lockspace, flockProgram), lockspace.reach);
  return [
    finding("lockspace", ok(`${lockspace.path} (id ${lockspace.id}) belongs to us alone`)),
    finding("filesystem", await attempt(() => judgeMountOf(lockspace))),
    finding("locks", await attempt(tried)),
  ];
}

function judgeMountOf({ path, reach }: Lockspace): Judgement {
  const mount = mountOf(path, readMountsAlong(path));
  if (mount === undefined) {
    return failure(`${path} is on no mount of /proc/self/mountinfo; is /proc mounted here?`);
  }
  const { fstype, options } = mount;
  return judgeFilesystem({ fstype, options, ...reach === "network" ? { declared: "shared" } : {} });
}

function judgeHost({ store, findDriver }: Patient, lockspace: Look["kind"]): Judgement {
  const host = observeHost(store, store.list(), findDriver);
  return judgeGuests(host, lockspace === "open" ? findStrays(store, findDriver) : []);
}

/** Processes with locks of which no record speaks; a start on its way to its record is none. */
function findStrays(store: GuestStore, findDriver: Patient["findDriver"]): Stray[] {
  const holdings = driverNames().flatMap((name) => findDriver(name)?.holdings() ?? []);
  const records = store.list().flatMap((entry) => entry.kind === "record" ? [entry.record] : []);
  return unrecordedLocks(holdings, records)
    .map(({ process: { pid } }) => pid).filter((pid) => !isLockvisor(pid))
    .map((pid) => ({ pid, command: commandName(pid) }));
}

function judgeRuntimeDirectory({ store: { runtimeDir }, effectiveUid }: Patient): Judgement {
  for (const directory of [runtimeDir, `${runtimeDir}/guests`]) {
    const status = directoryStatus("runtime directory", directory);
    if (status === undefined) return ok(`${directory} does not exist yet; the first start makes it`);
    refuseUnsafeDirectory("runtime directory", directory, status, effectiveUid);
  }
  return ok(`${runtimeDir} belongs to us alone`);
}

async function attempt(check: () => Judgement | Promise<Judgement>): Promise<Judgement> {
  try {
    return await check();
  } catch (error) {
    return asFailure(error);
  }
}

/** An error of ours is a finding: its message says what to do. What is none of ours is a bug and goes on. */
export function asFailure(error: unknown): Judgement {
  if (error instanceof LockvisorError) return failure(error.message);
  throw error;
}
