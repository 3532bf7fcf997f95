import type { Access, Operation, ResourceName, Wish } from "./operations.ts";

/** Sequences that once ended wrong, each in its smallest form; they are played before the random ones. */
export const KNOWN_SEQUENCES: readonly (readonly Operation[])[] = [
  // What is asked for twice was released in the record alone.
  [adopt("A"), acquire("A", wish("disk1"), wish("disk1")), release("A", "disk1")],
  // A guest that had lost the lease on itself was started a second time.
  [adopt("A", wish("disk1")), { kind: "kill-holder", guest: "A", which: 0 }, adopt("A", wish("disk2"))],
  // A disk under two names, each in a holder of its own, was shown as not locked when one of them had ended.
  [
    adopt("A", wish("disk0", "shared")),
    acquire("A", wish("disk0-symbolic", "shared")),
    { kind: "kill-holder", guest: "A", which: 1 },
    { kind: "attach" },
  ],
  // A refused resume gave up what another name of a disk had locked meanwhile.
  [
    adopt("A", wish("disk0", "shared"), wish("disk1")),
    adopt("B"),
    { kind: "pause", guest: "A", locks: "released" },
    acquire("A", wish("disk0-symbolic", "shared")),
    acquire("B", wish("disk1")),
    { kind: "resume", guest: "A", changes: "refuse" },
  ],
  // The notes of an earlier life of the guest kept its record from being made again, or gave it its old disks.
  [
    adopt("B", wish("disk2"), wish("disk0-hard", "readonly")),
    { kind: "kill", guest: "B" },
    adopt("B", wish("disk2")),
    { kind: "wipe-and-attach" },
  ],
  // The access of an earlier grant came back with the record.
  [
    adopt("A", wish("disk1")),
    release("A", "disk1"),
    acquire("A", wish("disk1", "shared")),
    { kind: "kill-holder", guest: "A", which: 0 },
    { kind: "wipe-and-attach" },
  ],
  // A refused adoption left the lock file of a guest that is none.
  [adopt("A", wish("disk1")), adopt("B", wish("disk1"))],
  // The lease on itself that a guest had lost was forgotten with its record.
  [
    adopt("A", wish("disk1")),
    acquire("A", wish("disk2")),
    { kind: "kill-holder", guest: "A", which: 0 },
    { kind: "wipe-and-attach" },
  ],
  // A holder that a pause had left without a lock was not found again with the record; another one carries for it.
  [
    adopt("A", wish("disk0", "readonly")),
    acquire("A", wish("cluster:db")),
    { kind: "pause", guest: "A", locks: "released" },
    { kind: "wipe-and-attach" },
    { kind: "resume", guest: "A", changes: "refuse" },
    { kind: "attach" },
    release("A", "cluster:db"),
  ],
  // A second pause forgot what the first one had given up, if the record had been made again in between.
  [
    adopt("A", wish("cluster:db")),
    { kind: "pause", guest: "A", locks: "released" },
    { kind: "wipe-and-attach" },
    { kind: "pause", guest: "A", locks: "released" },
    { kind: "resume", guest: "A", changes: "refuse" },
  ],
  // So did the note of it, and the resource was in no record that was made again.
  [
    adopt("A", wish("cluster:db")),
    { kind: "pause", guest: "A", locks: "released" },
    { kind: "wipe-and-attach" },
    { kind: "pause", guest: "A", locks: "released" },
    { kind: "wipe-and-attach" },
  ],
  // The end of a holder that no record told to have what was given up kept nobody from taking that back.
  [
    adopt("A", wish("cluster:db")),
    { kind: "pause", guest: "A", locks: "released" },
    { kind: "wipe-and-attach" },
    { kind: "kill-holder", guest: "A", which: 0 },
    { kind: "resume", guest: "A", changes: "refuse" },
  ],
  // It was taken back in another process of the guest, which had it open since before the record was made again.
  [
    adopt("A", wish("disk1"), wish("cluster:db")),
    { kind: "pause", guest: "A", locks: "released" },
    { kind: "wipe-and-attach" },
    release("A", "cluster:db"),
    acquire("A", wish("cluster:db")),
    { kind: "pause", guest: "A", locks: "released" },
    { kind: "resume", guest: "A", changes: "refuse" },
  ],
  // A guest that had lost the lease on itself was told that it ran on with its locks.
  [
    adopt("A"),
    { kind: "pause", guest: "A", locks: "kept" },
    { kind: "kill-holder", guest: "A", which: 0 },
    { kind: "resume", guest: "A", changes: "refuse" },
    { kind: "attach" },
    { kind: "resume", guest: "A", changes: "refuse" },
  ],
  // Two guests had lost the same disk, and the one that was attached first took it again, so that the other could not.
  [
    adopt("A", wish("disk1")),
    { kind: "kill-holder", guest: "A", which: 0 },
    adopt("B", wish("disk1", "shared")),
    { kind: "kill-holder", guest: "B", which: 0 },
    { kind: "attach" },
  ],
  // With the lease on itself that a paused guest took again went the note of what it had given up.
  [
    adopt("A", wish("cluster:db")),
    { kind: "pause", guest: "A", locks: "released" },
    { kind: "kill-holder", guest: "A", which: 0 },
    { kind: "attach" },
    { kind: "wipe-and-attach" },
  ],
  // A disk that was released, and then locked under another name alone, came back with the record under both.
  [
    adopt("A", wish("disk0", "readonly")),
    release("A", "disk0"),
    acquire("A", wish("disk0-symbolic")),
    { kind: "wipe-and-attach" },
  ],
  [
    adopt("A", wish("disk0")),
    release("A", "disk0"),
    acquire("A", wish("disk0-symbolic", "shared")),
    { kind: "wipe-and-attach" },
  ],
  // So it did while the guest was paused, and had no note beside that disk.
  [
    adopt("A", wish("disk0", "readonly")),
    release("A", "disk0"),
    acquire("A", wish("disk0-symbolic")),
    { kind: "pause", guest: "A", locks: "released" },
    { kind: "wipe-and-attach" },
  ],
];

function wish(resource: ResourceName, access: Access = "exclusive"): Wish {
  return { resource, access };
}

function adopt(guest: "A" | "B", ...wishes: Wish[]): Operation {
  return { kind: "start", guest, by: "adopt", wishes };
}

function acquire(guest: "A" | "B", ...wishes: Wish[]): Operation {
  return { kind: "acquire", guest, wishes };
}

function release(guest: "A" | "B", ...resources: ResourceName[]): Operation {
  return { kind: "release", guest, resources };
}
