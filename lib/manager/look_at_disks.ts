import { LockvisorError } from "../errors.ts";
import { hiddenDescriptors } from "../process/descriptors.ts";
import { fileIdAt, imageFilesOf } from "../process/image_files.ts";
import { openLeaves } from "../qemu/open_leaves.ts";
import { readNodes, readPermissionGraph } from "../qemu/permission_graph.ts";
import { type QmpClient, QmpCommandError } from "../qmp/client.ts";
import { AbsentGuest } from "./absent_guest.ts";
import { hasMonitor, withMonitor } from "./guest_monitor.ts";
import type { GuestRecord } from "./guest_record.ts";
import { disksOfFiles, disksOfLeaves, type OpenDisks, type ViewSource } from "./open_disks.ts";

/** How long each step with the monitor may take, in milliseconds: there is another way to know. */
const MONITOR_DEADLINE_MS = 2000;

/**
 * Asks what a guest's QEMU has open: QEMU itself, or the kernel where it has no monitor, or does not answer.
 * @param source `proc` asks the kernel alone
 * @throws {LockvisorError} `data` when the guest has ended, `permission` when neither can be asked
 */
export async function lookAtDisks(record: GuestRecord, source: ViewSource = "qmp"): Promise<OpenDisks> {
  if (source === "proc" || !hasMonitor(record)) return lookAtDescriptors(record, []);
  let replies: Replies;
  try {
    replies = await withMonitor(record, { deadlineMs: MONITOR_DEADLINE_MS }, askQemu);
  } catch (error) {
    if (!(error instanceof LockvisorError)) throw error;
    return lookAtDescriptors(record, [
      `its monitor does not answer (${error.message}): network disks, and what a backing file is, are not known`,
    ]);
  }
  const [{ pid }] = record.carriers;
  const files = imageFilesOf(pid);
  if (files === "gone") throw ended(record);
  const nodes = readNodes(replies.nodes);
  const { leaves, unnamed } = openLeaves(nodes, readPermissionGraph(replies.graph, nodes), directoryOf(pid));
  const view = disksOfLeaves(leaves, files === "hidden" ? undefined : files, fileIdAt);
  return { ...view, source: "qmp", unnamed: [...unnamed, ...view.unnamed] };
}

interface Replies {
  nodes: unknown;
  graph: unknown;
}

async function askQemu(monitor: QmpClient): Promise<Replies> {
  const nodes = await monitor.execute("query-named-block-nodes", { flat: true });
  try {
    return { nodes, graph: await monitor.execute("x-debug-query-block-graph") };
  } catch (error) {
    // A command for debugging may be missing in a later QEMU.
    if (error instanceof QmpCommandError) return { nodes, graph: undefined };
    throw error;
  }
}

function lookAtDescriptors(record: GuestRecord, warnings: readonly string[]): OpenDisks {
  const [{ pid }] = record.carriers;
  const files = imageFilesOf(pid);
  if (files === "gone") throw ended(record);
  if (files === "hidden") throw hiddenDescriptors(pid);
  return { ...disksOfFiles(files, fileIdAt), source: "proc", warnings };
}

/** Where QEMU runs; what it calls its files need not begin there. */
function directoryOf(pid: number): string {
  try {
    return Deno.readLinkSync(`/proc/${pid}/cwd`);
  } catch {
    return `/proc/${pid}/cwd`;
  }
}

function ended({ name }: GuestRecord): AbsentGuest {
  return new AbsentGuest(`guest "${name}" has ended meanwhile`);
}
