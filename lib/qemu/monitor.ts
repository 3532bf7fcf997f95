import { absolutePath } from "../identity/absolute_path.ts";
import { type Parameters, parseParameters, switchOf } from "./option_string.ts";
import type { QemuSettings } from "./settings.ts";

/** The absolute path of the first QMP monitor that QEMU listens for on a unix socket; undefined where there is none. */
export function monitorSocket(
  settings: Pick<QemuSettings, "monitors" | "chardevs">,
  directory: string | undefined,
): string | undefined {
  return monitorSockets(settings, directory).find(({ id }) => id !== EVENTS_ID)?.path;
}

/** What the chardev of a monitor is called that is there for lockvisor's agent to hear events on, and for nobody else. */
const EVENTS_ID = "lockvisor-events";

/** The absolute path of the QMP monitor whose chardev is called `lockvisor-events`; undefined where there is none. */
export function eventSocket(
  settings: Pick<QemuSettings, "monitors" | "chardevs">,
  directory: string | undefined,
): string | undefined {
  return monitorSockets(settings, directory).find(({ id }) => id === EVENTS_ID)?.path;
}

/** All QMP monitors that QEMU listens for on unix sockets, in their order, with the ids of their chardevs. */
function monitorSockets(
  { monitors, chardevs }: Pick<QemuSettings, "monitors" | "chardevs">,
  directory: string | undefined,
): { id: string | undefined; path: string }[] {
  const byId = (id: string) => chardevs.find(({ parameters }) => parameters.first("id") === id)?.parameters;
  return monitors.flatMap((monitor) => {
    const parameters = monitor.kind === "chardev" ? byId(monitor.id) : addressed(monitor.address, byId);
    const path = parameters === undefined ? undefined : listeningPath(parameters);
    const id = monitor.kind === "chardev" ? monitor.id : /^chardev:(.*)$/s.exec(monitor.address)?.[1];
    return path === undefined ? [] : [{ id, path: absolutePath(path, directory) }];
  });
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
