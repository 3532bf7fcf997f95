import { isPresent } from "../files/presence.ts";

/** A QEMU that a guest's command starts in its own place. */
export interface QemuProgram {
  /** The program as the command names it. */
  program: string;
  args: string[];
  /** The directory that a launcher changes to first (`env --chdir=DIR`). */
  directory: string | undefined;
}

/** How QEMU's system emulators are called: upstream, and by distributions. */
const QEMU_NAME = /^(qemu-system-.+|qemu-kvm|kvm)$/;

/**
 * Programs that run another one in their own place, with their options that take the next word as a value, and the words
 * of their own that stand before the program.
 */
const LAUNCHERS: Record<string, { valued: readonly string[]; own?: RegExp }> = {
  env: { valued: ["-u", "--unset", "-C", "--chdir"], own: /^[^=]+=/s },
  nice: { valued: ["-n", "--adjustment"] },
  ionice: { valued: ["-c", "--class", "-n", "--classdata"] },
  chrt: { valued: ["-T", "-P", "-D"], own: /^\d+$/ },
  taskset: { valued: [], own: /^(0x)?[0-9a-f,:/-]+$/i },
  numactl: {
    valued:
      "-i -w -p -P -m -N -C --interleave --weighted-interleave --preferred --preferred-many --membind --cpunodebind --physcpubind"
        .split(" "),
  },
  setsid: { valued: [] },
  nohup: { valued: [] },
  stdbuf: { valued: ["-i", "-o", "-e", "--input", "--output", "--error"] },
  prlimit: { valued: [] },
  setpriv: {
    valued:
      "--ambient-caps --inh-caps --bounding-set --ruid --euid --rgid --egid --reuid --regid --groups --securebits --pdeathsig --selinux-label --apparmor-profile --landlock-access --landlock-rule --seccomp-filter --ptracer"
        .split(" "),
  },
};

/**
 * The QEMU in a guest's command, found by name after links are resolved, also behind launchers that keep pid and
 * descriptors. Undefined for any other command, and for launchers that are not known.
 * @param path gives the variable PATH; where it throws, links in PATH are not found
 */
export function findQemu(
  command: readonly string[],
  path: () => string | undefined,
): QemuProgram | undefined {
  let [program, ...args] = command;
  let directory: string | undefined;
  while (program !== undefined) {
    const launcher = Object.hasOwn(LAUNCHERS, baseName(program)) ? LAUNCHERS[baseName(program)]! : undefined;
    if (launcher === undefined) break;
    let index = 0;
    for (; index < args.length; index++) {
      const word = args[index]!;
      if (word === "--") {
        index++;
        break;
      }
      if (word.startsWith("-") && word !== "-") {
        const isEnv = baseName(program) === "env";
        const [, changed] = /^(?:--chdir=|-C(?=.))(.*)$/s.exec(word) ?? [];
        if (isEnv && changed !== undefined) directory = changed;
        if (launcher.valued.includes(word)) {
          index++;
          if (isEnv && (word === "-C" || word === "--chdir")) directory = args[index];
        }
      } else if (!launcher.own?.test(word)) break;
    }
    program = args[index];
    args = args.slice(index + 1);
  }
  return program !== undefined && isQemu(program, path) ? { program, args, directory } : undefined;
}

/** Whether the file of a running program is called as a QEMU is; an upgrade may have removed it meanwhile. */
export function isQemuFile(path: string): boolean {
  return QEMU_NAME.test(baseName(path.replace(/ \(deleted\)$/, "")));
}

function isQemu(program: string, path: () => string | undefined): boolean {
  if (QEMU_NAME.test(baseName(program))) return true;
  try {
    const file = program.includes("/")
      ? program
      : (path() ?? "").split(":").map((folder) => `${folder}/${program}`).find(isPresent);
    return file !== undefined && isPresent(file) && QEMU_NAME.test(baseName(Deno.realPathSync(file)));
  } catch {
    return false; // whoever starts it meets the error
  }
}

function baseName(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}
