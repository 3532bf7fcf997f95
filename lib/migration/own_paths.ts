import { isPathAlone, readCommand, valueParts } from "./qemu_options.ts";

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
  const [first, ...others] = valueParts(text);
  if (first === undefined) return [];
  const settings = new Map([first, ...others].map(({ key, value }) => [key.slice(0, -1), value]));
  const path = /^unix:(.+)$/s.exec(first.value)?.[1];
  if (option === "vnc") return path === undefined ? [] : [path];
  if (CHARACTER_DEVICES.has(option)) {
    return path !== undefined && isServer(settings, others) ? [path] : [];
  }
  if (option === "chardev" && first.value === "socket" && isServer(settings, others)) {
    const given = settings.get("path");
    return given === undefined ? [] : [given];
  }
  return [];
}

/** `server`, `server=on`; both stand for a socket that QEMU listens on. */
function isServer(settings: ReadonlyMap<string, string>, others: readonly { text: string }[]): boolean {
  const value = settings.get("server");
  return value === "on" || value === "yes" || others.some(({ text }) => text === "server");
}
