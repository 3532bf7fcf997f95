/** Where processes are put into groups: the hierarchies in which systemd makes groups of its own, cgroups(7). */
export interface MountedCgroups {
  /** The one of version 2. */
  unified: string;
  /** All of them: the unified one, and where it is only beside the old ones also systemd's own. */
  all: string[];
}

/** @throws when this system has no unified hierarchy */
export function mountedCgroups(): MountedCgroups {
  const mounts = Deno.readTextFileSync("/proc/self/mountinfo").split("\n").map((line) => {
    const words = line.split(" ");
    const [type, , options = ""] = words.slice(words.indexOf("-") + 1);
    return { point: words[4] ?? "", type, options };
  });
  const unified = mounts.find(({ type }) => type === "cgroup2")?.point;
  if (unified === undefined) throw new Error("hosts with systemd need cgroup2, and it is not mounted");
  const named = mounts.find(({ type, options }) =>
    type === "cgroup" && options.split(",").includes("name=systemd")
  );
  return { unified, all: named === undefined ? [unified] : [unified, named.point] };
}

/** The processes in a group and those below it. */
export function processesIn(group: string): number[] {
  let entries: Deno.DirEntry[];
  try {
    const own = Deno.readTextFileSync(`${group}/cgroup.procs`).split("\n").filter((line) => line !== "");
    entries = [...Deno.readDirSync(group)];
    const below = entries.filter(({ isDirectory }) => isDirectory);
    return [...own.map(Number), ...below.flatMap(({ name }) => processesIn(`${group}/${name}`))];
  } catch {
    return []; // it has gone
  }
}
