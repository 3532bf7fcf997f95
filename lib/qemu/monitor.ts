import { absolutePath } from "../identity/absolute_path.ts";
import { type Parameters, parseParameters, switchOf } from "./option_string.ts";
import type { QemuSettings } from "./settings.ts";

/** The absolute path of the first QMP monitor that QEMU listens for on a unix socket; undefined where there is none. */
export function monitorSocket(
  { monitors, chardevs }: QemuSettings,
  directory: string | undefined,
): string | undefined {
  const byId = (id: string) => chardevs.find(({ parameters }) => parameters.first("id") === id)?.parameters;
  for (const monitor of monitors) {
    const parameters = monitor.kind === "chardev" ? byId(monitor.id) : addressed(monitor.address, byId);
    const path = parameters === undefined ? undefined : listeningPath(parameters);
    if (path !== undefined) return absolutePath(path, directory);
  }
  return undefined;
}

/** What `-qmp` is given: `unix:PATH[,server=on]`, or `chardev:ID`; undefined for anything else. */
function addressed(
  address: string,
  byId: (id: string) => Parameters | undefined,
): Parameters | undefined {
  return address.startsWith("chardev:") ? byId(address.slice("chardev:".length)) : socketAddress(address);
}

/** An address `unix:PATH[,server=on]` as the chardev that QEMU makes of it; undefined for anything else. */
export function socketAddress(address: string): Parameters | undefined {
  if (!address.startsWith("unix:")) return undefined;
  const parameters = parseParameters(address.slice("unix:".length), "path");
  parameters.set("backend", "socket");
  return parameters;
}

/** The path that a chardev listens on; none for a descriptor, a name without a file, or a client. */
export function listeningPath(parameters: Parameters): string | undefined {
  const isOn = (name: string) => switchOf(parameters.get(name) ?? "off") === true;
  if (parameters.get("backend") !== "socket" || !isOn("server") || isOn("abstract")) return undefined;
  return parameters.get("path");
}
