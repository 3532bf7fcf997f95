import { absolutePath } from "../identity/absolute_path.ts";
import type { FoundDisk } from "./found_disks.ts";
import { switchParameter, type Thing } from "./settings.ts";

/**
 * Disks in the shape of memory: the file behind a persistent memory device (`-device nvdimm`, `virtio-pmem`). A file
 * that is only the guest's RAM is no disk.
 */
export function memoryDisks(
  devices: readonly Thing[],
  objects: readonly Thing[],
  directory: string | undefined,
): { disks: FoundDisk[]; ignored: string[] } {
  if (objects.length === 0) return { disks: [], ignored: [] };
  const persistent = new Set(
    devices.filter(({ parameters }) => isPersistentMemory(parameters.get("driver") ?? ""))
      .map(({ parameters }) => parameters.get("memdev")),
  );
  const disks: FoundDisk[] = [];
  const ignored: string[] = [];
  for (const object of objects) {
    const { origin, parameters } = object;
    const path = parameters.get("mem-path");
    if (parameters.get("qom-type") !== "memory-backend-file" || path === undefined) continue;
    if (!persistent.has(parameters.get("id"))) {
      ignored.push(`${origin}: the guest's memory, which is no disk`);
      continue;
    }
    // Without share=on what the guest writes stays in its process.
    const isWritten = (switchParameter(object, "share") ?? false) &&
      !(switchParameter(object, "readonly") ?? false);
    disks.push({
      name: absolutePath(path, directory),
      access: isWritten ? "exclusive" : "readonly",
      origin,
      format: "raw",
    });
  }
  return { disks, ignored };
}

function isPersistentMemory(driver: string): boolean {
  return driver === "nvdimm" || driver.startsWith("virtio-pmem");
}
