import type { FailpointName } from "../../lib/failpoint_names.ts";

/**
 * A job that is killed at each of some points. In its words IMAGE stands for the file that the guest writes before it, and
 * TARGET for a new name.
 */
export interface DiskJobScenario {
  title: string;
  /** Overlays of the guest's first image `top`, from the bottom up. */
  backing: string[];
  args: string[];
  /** What QEMU has open before, and after. */
  before: string[];
  after: string[];
  /** What the guest writes after it. */
  written: string;
  /** Brings the guest back to where it was, once the job was done; NEXT stands for another new name. */
  back?: { args: string[]; written: string };
  /** Whether the target stays, though nobody has it open. */
  leavesCopy: boolean;
  points: FailpointName[];
}

const MAKING = points(
  ...["noted", "file-made", "file-named", "target-locked", "image-made", "image-opened"],
);
const COPYING = points("started", "waited");
const FINISHING = points("complete-noted", "dismissed", "closed", "followed");

function points(...names: string[]): FailpointName[] {
  return names.map((name) => `disk-job.${name}` as FailpointName);
}

export const DISK_JOBS: DiskJobScenario[] = [
  {
    title: "disk snapshot",
    backing: [],
    args: ["snapshot", "vda", "TARGET"],
    before: ["top"],
    after: ["top", "TARGET"],
    written: "TARGET",
    back: { args: ["commit", "vda"], written: "top" },
    leavesCopy: false,
    points: [...MAKING, ...COPYING, ...FINISHING],
  },
  {
    title: "disk commit",
    backing: ["over"],
    args: ["commit", "vda", "--top", "IMAGE", "--base", "top"],
    before: ["top", "IMAGE"],
    after: ["top"],
    written: "top",
    back: { args: ["snapshot", "vda", "NEXT"], written: "NEXT" },
    leavesCopy: false,
    points: [...points("noted", "base-locked"), ...COPYING, ...points("completing"), ...FINISHING],
  },
  {
    title: "disk mirror",
    backing: [],
    args: ["mirror", "vda", "TARGET"],
    before: ["IMAGE"],
    after: ["TARGET"],
    written: "TARGET",
    leavesCopy: false,
    points: [...MAKING, ...COPYING, ...points("completing"), ...FINISHING],
  },
  {
    title: "disk mirror --finish copy",
    backing: [],
    args: ["mirror", "vda", "TARGET", "--finish", "copy"],
    before: ["top"],
    after: ["top"],
    written: "top",
    leavesCopy: true,
    points: [...points("image-opened"), ...COPYING, ...points("completing"), ...FINISHING],
  },
  {
    title: "disk backup",
    backing: [],
    args: ["backup", "vda", "TARGET"],
    before: ["top"],
    after: ["top"],
    written: "top",
    leavesCopy: true,
    points: [...points("file-made", "target-locked"), ...COPYING, ...FINISHING],
  },
];

/** Where an abort is killed. */
export const UNDO_POINTS = points("undoing", "nodes-deleted", "file-removed", "unlocked");

/** All points at which a job's command is killed. */
export const DISK_JOB_CASES = [...DISK_JOBS.flatMap((scenario) => scenario.points), ...UNDO_POINTS].map((
  at,
) => ({
  at,
}));
