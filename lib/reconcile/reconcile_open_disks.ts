import { resourcesAttach } from "../domain_lock.ts";
import { LockvisorError } from "../errors.ts";
import type { HostSession } from "../host_session.ts";
import type { Identity } from "../identity/key.ts";
import { readMounts } from "../identity/mounts.ts";
import { resolveResource } from "../identity/resource.ts";
import { livingRecord } from "../manager/attached_record.ts";
import type { GuestRecord } from "../manager/guest_record.ts";
import { lookAtDisks } from "../manager/look_at_disks.ts";
import type { OpenDisks, ViewSource } from "../manager/open_disks.ts";
import { planReconcile, type ReconcileStep } from "../manager/reconcile_plan.ts";
import {
  diskOfStep,
  isQemuGuest,
  type ReconciledDisk,
  type ReconcileReport,
  whyNotNow,
} from "../manager/reconcile_report.ts";
import { comparable, type NamesOnHost } from "../manager/tracked_disks.ts";
import { fileIdAt } from "../process/image_files.ts";
import { applyStep } from "./reconcile_step.ts";

/** How often it is looked again, at most: what QEMU opened while locks were taken is found then. */
const ROUNDS = 3;

/**
 * Makes the locks of a guest what its QEMU has open, to be called by who has the plug lock of the guest
 * (`store.withPlugging`) and no connection to its monitor: locks go in through it. What somebody else has is noted as
 * unprotected, and never an error.
 * @param source whom to ask first; the descriptors are asked where the monitor does not answer
 * @throws {LockvisorError} `data` for a guest that has ended or is no QEMU, `permission` where its process is hidden
 */
export async function reconcileOpenDisks(
  session: HostSession,
  guest: GuestRecord,
  source: ViewSource = "qmp",
): Promise<ReconcileReport> {
  const disks = new Map<string, ReconciledDisk>();
  await finishCutOff(session, guest);
  for (let round = 1;; round++) {
    const compared = await compare(session, guest, source);
    if (compared.kind === "skipped") return compared.report;
    const { record, view, steps, unidentified } = compared;
    noteSeen(session, record, steps);
    let changes = 0;
    for (const step of steps) {
      const disk = await applyStep(session, record, step);
      const isChange = !["kept", "unused", "unprotected", "failed"].includes(disk.result);
      if (isChange) changes++;
      if (isChange || !disks.has(disk.name) || disk.result === "unprotected" || disk.result === "failed") {
        disks.set(disk.name, disk);
      }
    }
    if (changes === 0 || round === ROUNDS) {
      return reportOf(view, [...disks.values(), ...unidentified]);
    }
  }
}

/** A release or a change of access that was cut off comes to its end first, as before whatever is locked. */
async function finishCutOff(session: HostSession, guest: GuestRecord): Promise<void> {
  const record = livingRecord(session.store, guest);
  const isCutOff = record.resources.some(({ leaving, changing }) => leaving || changing !== undefined);
  if (!isCutOff || whyNotNow(record) !== undefined) return;
  await resourcesAttach(await session.domainLock(record), record, []);
}

/** What a reconciliation would do. @throws {LockvisorError} as {@linkcode reconcileOpenDisks} */
export async function tellDifferences(session: HostSession, guest: GuestRecord): Promise<ReconcileReport> {
  const compared = await compare(session, guest, "qmp");
  if (compared.kind === "skipped") return compared.report;
  return reportOf(compared.view, [...compared.steps.map(diskOfStep), ...compared.unidentified]);
}

type Compared = { kind: "skipped"; report: ReconcileReport } | {
  kind: "compared";
  record: GuestRecord;
  view: OpenDisks;
  steps: ReconcileStep[];
  /** What QEMU has open and cannot be told from other disks. */
  unidentified: ReconciledDisk[];
};

async function compare(session: HostSession, guest: GuestRecord, source: ViewSource): Promise<Compared> {
  const before = livingRecord(session.store, guest);
  const why = whyNotNow(before);
  if (why !== undefined) {
    return { kind: "skipped", report: { source: null, skipped: why, disks: [], jobs: [], warnings: [] } };
  }
  if (!isQemuGuest(before)) {
    throw new LockvisorError(
      "data",
      `guest "${before.name}" is no QEMU: what it has open does not tell what its disks are; use lockvisor acquire and release`,
    );
  }
  const view = await lookAtDisks(before, source);
  const record = livingRecord(session.store, guest);
  const { open, tracked, unidentified } = comparable(record, view, namesOf(session));
  return {
    kind: "compared",
    record,
    view,
    steps: planReconcile(tracked, open),
    unidentified: unidentified.map(({ disk: { name, access }, error }) => ({
      name,
      access,
      result: "failed",
      error,
    })),
  };
}

/** What names mean on this host. The mounts are read once: that costs more than all the rest. */
function namesOf({ config: { host, storage } }: HostSession): NamesOnHost {
  const context = { hostId: host.id, storage, mounts: readMounts() };
  const found = new Map<string, readonly Identity[]>();
  return {
    hostId: host.id,
    fileIdAt,
    identitiesOf: (name) => {
      const identities = found.get(name) ??
        resolveResource({ type: "disk", name, access: "readonly" }, context).identities;
      found.set(name, identities);
      return identities;
    },
  };
}

/** Notes what QEMU has open, so that its descriptors alone can tell later that it is not any more. */
function noteSeen({ store }: HostSession, record: GuestRecord, steps: readonly ReconcileStep[]): void {
  const seen = new Set(
    steps.flatMap((step) =>
      (step.kind === "kept" && step.use !== "not-known") || step.kind === "strengthen" ||
        step.kind === "weaken"
        ? [step.resource]
        : []
    ).filter((resource) => resource.followed && !resource.seen).map(({ name }) => name),
  );
  if (seen.size === 0) return;
  store.update(record, (current) => ({
    ...current,
    resources: current.resources.map((resource) =>
      resource.type === "disk" && resource.followed && seen.has(resource.name)
        ? { ...resource, seen: true }
        : resource
    ),
  }));
}

function reportOf({ source, warnings, unnamed }: OpenDisks, disks: ReconciledDisk[]): ReconcileReport {
  const notes = disks.flatMap((disk) =>
    disk.result === "kept" && disk.use === "stated-shared"
      ? [`disk ${disk.name} was stated to be shared, and QEMU writes it without letting others write`]
      : []
  );
  return {
    source,
    skipped: null,
    disks,
    jobs: [],
    warnings: [
      ...warnings,
      ...unnamed.map((each) => `QEMU may have a disk open that cannot be locked from here: ${each}`),
      ...notes,
    ],
  };
}
