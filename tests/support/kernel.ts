/** How the kernel sees a lock file: tried with flock(1), another program than ours. */
export async function canLock(file: string, mode: "exclusive" | "shared" = "exclusive"): Promise<boolean> {
  const flag = mode === "exclusive" ? "-x" : "-s";
  const { code } = await new Deno.Command("flock", { args: ["-n", flag, file, "true"], stderr: "null" })
    .output();
  return code === 0;
}

/** The lock files of a lockspace, by name. */
export function lockFiles(lockspace: string): string[] {
  return Array.from(Deno.readDirSync(lockspace), (entry) => entry.name).filter((name) => /\.[ab]$/.test(name))
    .sort();
}

/** Every file below a directory, with its size, to see that a failed command changed nothing. */
export function snapshot(directory: string): string[] {
  const found: string[] = [];
  const visit = (path: string) => {
    for (const entry of Deno.readDirSync(path)) {
      const child = `${path}/${entry.name}`;
      const status = Deno.lstatSync(child);
      found.push(`${child} ${status.mode} ${status.isFile ? status.size : "-"} ${status.mtime?.getTime()}`);
      if (entry.isDirectory) visit(child);
    }
  };
  visit(directory);
  return found.sort();
}

/** Descriptors of a process that hold a flock, by the kernel's word: the files' paths. */
export function flockedFiles(pid: number): string[] {
  const files = Array.from(Deno.readDirSync(`/proc/${pid}/fdinfo`), ({ name }) => {
    try {
      const isLocked = /^lock:.*FLOCK/m.test(Deno.readTextFileSync(`/proc/${pid}/fdinfo/${name}`));
      return isLocked ? [Deno.readLinkSync(`/proc/${pid}/fd/${name}`)] : [];
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return []; // closed meanwhile
      throw error;
    }
  });
  return files.flat().sort();
}
