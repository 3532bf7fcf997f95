import { listeningPath, socketAddress } from "../qemu/monitor.ts";
import { parseParameters } from "../qemu/option_string.ts";
import { isPathAlone, readCommand } from "./qemu_options.ts";

/** Options whose value may begin with the kind of a character device, such as `unix:PATH,server=on`. */
const CHARACTER_DEVICES = new Set(["qmp", "qmp-pretty", "monitor", "serial", "parallel", "debugcon", "gdb"]);

/**
 * The paths of a QEMU command that two QEMUs of one host cannot both have: the unix sockets that it listens on, and its
 * pid file. QEMU takes a socket's name away from whoever had it.
 */
export function ownPaths(command: readonly string[]): string[] {
  return readCommand(command).flatMap((each) => {
    if (each.kind === "other" || each.value === undefined) return [];
    if (isPathAlone(each.name)) return each.name === "pidfile" ? [each.value] : [];
    return socketsOf(each.name, each.value);
  });
}

function socketsOf(option: string, text: string): string[] {
  const parameters = option === "chardev" ? parseParameters(text, "backend") : socketAddress(text);
  if (parameters === undefined) return [];
  const path = option === "vnc"
    ? parameters.get("path")
    : option === "chardev" || CHARACTER_DEVICES.has(option)
    ? listeningPath(parameters)
    : undefined;
  return path === undefined ? [] : [path];
}
