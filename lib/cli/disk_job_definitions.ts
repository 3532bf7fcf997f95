import { type CommandDefinition, JSON_OPTION, type OptionDefinition } from "./definition.ts";
import { abort, backup, commit, mirror, snapshot } from "./disk_job.ts";

const GUEST_AND_DISK = [{ name: "GUEST", presence: "required" }, {
  name: "DISK",
  presence: "required",
}] as const;

const SPEED_OPTION: OptionDefinition = {
  name: "speed",
  placeholder: "BYTES",
  summary: "bytes a second at most, such as 100M (default: as fast as it goes)",
};

const TARGET_FORMAT: OptionDefinition = {
  name: "format",
  placeholder: "FORMAT",
  choices: ["qcow2", "raw"],
  summary: "the copy's format (default: that of the disk's image)",
};

const WHICH_DISK =
  "DISK is the id of a device or drive, a node, or an image of the disk under any of its names. The guest needs its QMP socket (run --qmp).";
const INTERRUPTED =
  "SIGINT and SIGTERM end the job, and all is as it was. After a kill the same command again takes the job up, and lockvisor disk abort undoes it.";

/** What QEMU itself does to the disks of a guest that runs, with the locks that it takes. */
export const DISK_JOB_COMMANDS: readonly CommandDefinition[] = [
  {
    name: "disk snapshot",
    summary: "have a running guest write a new overlay; its image becomes a backing file, locked readonly",
    arguments: [...GUEST_AND_DISK, { name: "OVERLAY", presence: "required" }],
    options: [
      {
        name: "format",
        placeholder: "FORMAT",
        choices: ["qcow2"],
        default: "qcow2",
        summary: "the overlay's format",
      },
      JSON_OPTION,
    ],
    details: [
      WHICH_DISK,
      "OVERLAY is a new file; if it exists: 73. It gets the owner and the mode of the image below it. Start the guest with it from then on.",
    ],
    run: snapshot,
  },
  {
    name: "disk commit",
    summary: "write what overlays have into the image below them, while the guest runs",
    arguments: GUEST_AND_DISK,
    options: [
      {
        name: "top",
        placeholder: "FILE",
        summary: "the uppermost image that is committed (default: the one that the guest writes)",
      },
      {
        name: "base",
        placeholder: "FILE",
        summary: "the image that is written (default: the one directly below)",
      },
      SPEED_OPTION,
      JSON_OPTION,
    ],
    details: [
      WHICH_DISK,
      "The base is locked exclusively before it is written: 75, with their names, as long as other guests use it. The files of what was committed stay, and are named: they are of no use any more.",
      INTERRUPTED,
    ],
    run: commit,
  },
  {
    name: "disk mirror",
    summary: "copy a disk while the guest runs and writes, and have it go over to the copy",
    arguments: [...GUEST_AND_DISK, { name: "TARGET", presence: "required" }],
    options: [
      TARGET_FORMAT,
      {
        name: "finish",
        placeholder: "HOW",
        choices: ["pivot", "copy"],
        default: "pivot",
        summary: "pivot: the guest goes on with the copy; copy: it goes on as before, and leaves a copy",
      },
      SPEED_OPTION,
      JSON_OPTION,
    ],
    details: [
      WHICH_DISK,
      "TARGET is a new file, or a block device, which is overwritten. It is locked exclusively. What the guest has not open any more at the end is released. A copy has all that the guest had written when the copy ended.",
      INTERRUPTED,
    ],
    run: mirror,
  },
  {
    name: "disk backup",
    summary: "copy a disk as it is at this moment, while the guest goes on",
    arguments: [...GUEST_AND_DISK, { name: "TARGET", presence: "required" }],
    options: [TARGET_FORMAT, SPEED_OPTION, JSON_OPTION],
    details: [
      WHICH_DISK,
      "TARGET is a new file, or a block device, which is overwritten. It is locked exclusively while it is written, and released at the end.",
      INTERRUPTED,
    ],
    run: backup,
  },
  {
    name: "disk abort",
    summary: "undo a disk job of lockvisor whose command was cut off",
    arguments: GUEST_AND_DISK,
    options: [JSON_OPTION],
    details: [
      "Ends the job in QEMU, and takes away what was made for it: nodes, files and locks. One that has come about is finished instead. Nothing to undo: a warning and no failure.",
    ],
    run: abort,
  },
];
