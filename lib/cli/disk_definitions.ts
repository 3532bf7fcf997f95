import { type CommandDefinition, DISK_OPTION, JSON_OPTION, LEASE_OPTION } from "./definition.ts";
import { plug, unplug } from "./disk.ts";
import { DISK_JOB_COMMANDS } from "./disk_job_definitions.ts";
import { acquire, release } from "./hotplug.ts";

/** What locks and plugs the disks of a guest that runs: the locks alone, then both in one step. */
export const DISK_COMMANDS: readonly CommandDefinition[] = [
  {
    name: "acquire",
    summary: "lock disks and leases for a running guest, before they are plugged in: all or none",
    arguments: [{ name: "GUEST", presence: "required" }],
    options: [DISK_OPTION, LEASE_OPTION, JSON_OPTION],
    details: [
      "QEMU itself holds the locks, if the guest was started with its QMP socket; else a tiny process beside the guest, which ends with it. What the guest has already with the same access needs nothing.",
    ],
    run: acquire,
  },
  {
    name: "release",
    summary: "give disks and leases of a running guest up, after they were unplugged",
    arguments: [{ name: "GUEST", presence: "required" }],
    options: [DISK_OPTION, LEASE_OPTION, JSON_OPTION],
    details: ["What the guest does not hold is a warning and no failure."],
    run: release,
  },
  {
    name: "disk plug",
    summary: "lock a disk with its backing files and plug it into a running guest: all of it or nothing",
    arguments: [{ name: "GUEST", presence: "required" }, { name: "DISK", presence: "required" }],
    options: [
      {
        name: "device",
        placeholder: "DEVICE-OPTIONS",
        default: "virtio-blk-pci",
        summary: "as QEMU's -device takes it, without drive=; JSON as well",
      },
      {
        name: "format",
        placeholder: "FORMAT",
        default: "raw",
        summary: "the image's format, such as qcow2; its backing files are locked too",
      },
      { name: "id", placeholder: "ID", summary: "the device's id (default: made from the path)" },
      JSON_OPTION,
    ],
    details: [
      "DISK is PATH[,access=exclusive|shared|readonly], a file or block device. The guest needs its QMP socket (run --qmp). Whatever fails, QEMU and the locks are as they were before. Again with the same disk and id: what is left to do is done, or nothing.",
    ],
    run: plug,
  },
  {
    name: "disk unplug",
    summary: "have a running guest give a disk up, then release what nothing else in it uses",
    arguments: [{ name: "GUEST", presence: "required" }, { name: "ID", presence: "required" }],
    options: [
      {
        name: "timeout",
        placeholder: "DURATION",
        default: "10s",
        summary: "how long the guest's system may take",
      },
      JSON_OPTION,
    ],
    details: [
      "ID is that of the device. A guest that does not give the disk up keeps it with its lock: 75. Again: what is left to do is done; an ID that is not there is a warning and no failure.",
    ],
    run: unplug,
  },
  ...DISK_JOB_COMMANDS,
];
