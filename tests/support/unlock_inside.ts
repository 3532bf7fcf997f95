import { closeDescriptor, flockDescriptor, pidfdGetfd, pidfdOpen } from "../../lib/libc/pidfd.ts";

// Releases the flock that another process has in its descriptor on a file.
const [pid, file] = Deno.args as [string, string];
const descriptors = Array.from(Deno.readDirSync(`/proc/${pid}/fd`), ({ name }) => name)
  .filter((name) => Deno.readLinkSync(`/proc/${pid}/fd/${name}`) === file);
const pinned = pidfdOpen(Number(pid));
if (pinned.outcome !== "ok" || descriptors.length === 0) throw new Error("no such process or descriptor");
for (const descriptor of descriptors) {
  const copy = pidfdGetfd(pinned.descriptor, Number(descriptor));
  if (copy.outcome !== "ok") throw new Error(copy.outcome);
  if (flockDescriptor(copy.descriptor, "unlock").outcome !== "ok") throw new Error("not unlocked");
  closeDescriptor(copy.descriptor);
}
