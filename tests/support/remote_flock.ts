import assert from "node:assert/strict";
import {
  closeDescriptor,
  flockDescriptor,
  type LockOperation,
  pidfdGetfd,
  pidfdOpen,
} from "../../lib/libc/pidfd.ts";

/** Does something to the flock of a lock file in another process's descriptor, as that process itself could. */
export function steer(pid: number, file: string, operation: LockOperation): void {
  const descriptor = Array.from(Deno.readDirSync(`/proc/${pid}/fd`), ({ name }) => Number(name))
    .find((number) => Deno.readLinkSync(`/proc/${pid}/fd/${number}`) === file);
  const pinned = pidfdOpen(pid);
  assert.ok(pinned.outcome === "ok" && descriptor !== undefined);
  const copy = pidfdGetfd(pinned.descriptor, descriptor);
  assert.ok(copy.outcome === "ok");
  assert.deepEqual(flockDescriptor(copy.descriptor, operation), { outcome: "ok" });
  for (const each of [copy, pinned]) closeDescriptor(each.descriptor);
}
