/** Why a command would lose the locks, and what to run in its place. */
export interface LauncherFault {
  launcher: string;
  reason: string;
  remedy: string;
}

/** Programs that run another one in their own place, with all descriptors: what follows them is what matters. */
const TRANSPARENT = new Set([
  "env",
  "nice",
  "ionice",
  "chrt",
  "taskset",
  "numactl",
  "setsid",
  "nohup",
  "stdbuf",
  "timeout",
  "prlimit",
  "unshare",
  "setpriv",
  "exec",
]);

const CLOSES = "closes inherited descriptors, so the guest would run without its locks";
const ELSEWHERE = "hands the guest to another process, which does not get the locks";

/**
 * Tells whether a command is a launcher that does not keep the locks. sudo, doas and pkexec close what they
 * inherit; systemd-run without --scope, container engines, ssh and virsh have another process start the program.
 */
export function launcherFault(command: readonly string[]): LauncherFault | undefined {
  const [program, ...args] = command;
  if (program === undefined) return undefined;
  const launcher = program.slice(program.lastIndexOf("/") + 1);
  if (TRANSPARENT.has(launcher)) return launcherFault(withoutOptions(args));
  switch (launcher) {
    case "sudo":
    case "doas":
    case "pkexec":
    case "run0":
      return {
        launcher,
        reason: launcher === "run0" ? ELSEWHERE : CLOSES,
        remedy:
          `turn the order round: ${launcher} lockvisor run … -- setpriv --reuid USER --regid GROUP --init-groups qemu…`,
      };
    case "systemd-run":
      if (args.includes("--scope")) return undefined;
      return {
        launcher,
        reason: ELSEWHERE,
        remedy: "use systemd-run --scope, or: systemd-run lockvisor run … -- qemu…",
      };
    case "docker":
    case "podman":
    case "nerdctl":
      if (!withoutOptions(args).some((word) => word === "run" || word === "start" || word === "exec")) {
        return undefined;
      }
      return {
        launcher,
        reason: ELSEWHERE,
        remedy: "run lockvisor inside the container, with the lockspace mounted there",
      };
    case "ssh":
    case "virsh":
      return { launcher, reason: ELSEWHERE, remedy: "run lockvisor where the guest's own process starts" };
    default:
      return undefined;
  }
}

/** Drops leading options, their plain numbers and durations, and NAME=VALUE words: what stays begins with a program. */
function withoutOptions(words: readonly string[]): string[] {
  const first = words.findIndex((word) => !/^-|^[A-Za-z_][A-Za-z0-9_]*=|^[0-9.]+[smhd]?$/.test(word));
  return first < 0 ? [] : words.slice(first);
}
