import { type FlatValue, readJsonOptions } from "./json_options.ts";
import { misunderstood } from "./misunderstood.ts";
import { type Parameter, Parameters, parseKeyValues, parseParameters, switchOf } from "./option_string.ts";
import { type ConfigSection, parseConfigFile } from "./config_file.ts";
import { splitCommandLine } from "./command_line.ts";

/** A `-drive`, or one of the options that stand for one (`-hda`). */
export interface DriveSetting {
  origin: string;
  parameters: Parameters;
}

/** A `-blockdev`. */
export interface BlockdevSetting {
  origin: string;
  options: Map<string, FlatValue>;
}

/** A `-device`, `-object`, `-chardev` or `-mon`, whichever way it was written. */
export interface Thing {
  origin: string;
  parameters: Parameters;
}

/** What a QEMU command line says that matters here, not yet put together. */
export interface QemuSettings {
  drives: DriveSetting[];
  blockdevs: BlockdevSetting[];
  devices: Thing[];
  objects: Thing[];
  chardevs: Thing[];
  /** Monitors, each an address as `-qmp` has it or the id of a chardev. */
  monitors: ({ kind: "address"; address: string } | { kind: "chardev"; id: string })[];
  snapshot: boolean;
  name: string | undefined;
  uuid: string | undefined;
  incoming: string | undefined;
  daemonize: boolean;
  pidfile: string | undefined;
  /** Options with files that are no disks, for people. */
  notDisks: string[];
}

/** Reads a file that the command line names, or the one that QEMU reads by itself. */
export interface ConfigReader {
  read(path: string): string;
  /** The text of /etc/qemu/qemu.conf if there is such a file. */
  readDefault(): string | undefined;
}

/** The images that options without parameters of their own stand for (`drive_add` in QEMU's vl.c). */
const SHORT_DRIVES: Record<string, Parameter[]> = {
  hda: [["media", "disk"], ["index", "0"]],
  hdb: [["media", "disk"], ["index", "1"]],
  hdc: [["media", "disk"], ["index", "2"]],
  hdd: [["media", "disk"], ["index", "3"]],
  cdrom: [["media", "cdrom"], ["index", "2"]],
  fda: [["if", "floppy"], ["index", "0"]],
  fdb: [["if", "floppy"], ["index", "1"]],
  mtdblock: [["if", "mtd"]],
  sd: [["if", "sd"]],
  pflash: [["if", "pflash"]],
};

/** What a value without a name stands for, of options with parameters. */
const IMPLIED_NAME: Record<string, string> = {
  device: "driver",
  object: "qom-type",
  chardev: "backend",
  mon: "chardev",
  name: "guest",
};

/**
 * Reads QEMU's arguments.
 * @throws {LockvisorError} for what is not understood and could name a disk
 */
export function readSettings(args: readonly string[], config: ConfigReader): QemuSettings {
  const words = splitCommandLine(args);
  const settings = new SettingsReader(config);
  const hasUserConfig = !words.some((word) =>
    word.kind === "option" && ["no-user-config", "nodefconfig"].includes(word.name)
  );
  if (hasUserConfig) settings.takeDefaultFile();
  for (const word of words) {
    if (word.kind === "image") settings.takeImage(word.file, SHORT_DRIVES.hda!, "image argument");
    else settings.takeOption(word.name, word.value);
  }
  return settings.settings;
}

class SettingsReader {
  readonly settings: QemuSettings = {
    drives: [],
    blockdevs: [],
    devices: [],
    objects: [],
    chardevs: [],
    monitors: [],
    snapshot: false,
    name: undefined,
    uuid: undefined,
    incoming: undefined,
    daemonize: false,
    pidfile: undefined,
    notDisks: [],
  };
  readonly #config: ConfigReader;
  readonly #counts = new Map<string, number>();

  constructor(config: ConfigReader) {
    this.#config = config;
  }

  takeDefaultFile(): void {
    const text = this.#config.readDefault();
    if (text !== undefined) this.#takeFile("/etc/qemu/qemu.conf", text);
  }

  takeImage(file: string, parameters: readonly Parameter[], origin: string): void {
    this.settings.drives.push({ origin, parameters: new Parameters([...parameters, ["file", file]]) });
  }

  takeOption(name: string, value: string): void {
    const { settings } = this;
    const origin = this.#originOf(name, value);
    if (Object.hasOwn(SHORT_DRIVES, name)) return this.takeImage(value, SHORT_DRIVES[name]!, origin);
    switch (name) {
      case "drive":
        settings.drives.push({ origin, parameters: parseParameters(value) });
        return;
      case "blockdev":
        settings.blockdevs.push({ origin, options: blockdevOptions(value, origin) });
        return;
      case "device":
      case "object":
      case "chardev":
      case "mon":
      case "name":
        return this.#takeThing(name, origin, thingParameters(name, value, origin));
      case "qmp":
      case "qmp-pretty":
        settings.monitors.push({ kind: "address", address: value });
        return;
      case "readconfig":
        return this.#takeFile(value, this.#config.read(value));
      case "set":
        return this.#set(value, origin);
      case "snapshot":
        settings.snapshot = true;
        return;
      case "uuid":
      case "incoming":
      case "pidfile":
        settings[name] = value;
        return;
      case "daemonize":
        settings.daemonize = true;
        return;
      case "usbdevice":
        if (value.startsWith("disk:")) throw misunderstood(origin, "only old versions know it");
        return;
      case "fsdev":
      case "virtfs":
        settings.notDisks.push(`${origin}: a directory, which is no disk`);
        return;
    }
  }

  /** What an option is called in messages: never by its whole value, which may have a password in it. */
  #originOf(name: string, value: string): string {
    const count = (this.#counts.get(name) ?? 0) + 1;
    this.#counts.set(name, count);
    const id = identifierIn(value);
    if (id !== "") return `-${name} ${id}`;
    return count === 1 ? `-${name}` : `-${name} (number ${count})`;
  }

  #takeFile(path: string, text: string): void {
    const sections = parseConfigFile(text);
    if (typeof sections === "string") throw misunderstood(`configuration file ${path}`, sections);
    for (const section of sections) this.#takeSection(path, section);
  }

  #takeSection(path: string, { group, id, parameters }: ConfigSection): void {
    const all = new Parameters([...id === undefined ? [] : [["id", id] as const], ...parameters]);
    const origin = `${path} [${group}${id === undefined ? "" : ` "${id}"`}]`;
    if (group === "drive") this.settings.drives.push({ origin, parameters: all });
    else if (Object.hasOwn(IMPLIED_NAME, group)) this.#takeThing(group, origin, all);
    else if (group === "blockdev") throw misunderstood(origin, "QEMU does not read it from a file");
  }

  #takeThing(group: string, origin: string, parameters: Parameters): void {
    const { settings } = this;
    switch (group) {
      case "device":
        settings.devices.push({ origin, parameters });
        return;
      case "object":
        settings.objects.push({ origin, parameters });
        return;
      case "chardev":
        settings.chardevs.push({ origin, parameters });
        return;
      case "mon":
        if (parameters.get("mode") === "control") {
          settings.monitors.push({ kind: "chardev", id: parameters.get("chardev") ?? "" });
        }
        return;
      case "name":
        settings.name = parameters.get("guest") ?? settings.name;
        return;
    }
  }

  /** `-set drive.ID.NAME=VALUE` changes an option that stands before it. */
  #set(value: string, origin: string): void {
    const [, group, id, name, set] = /^([^.]+)\.([^.]+)\.([^=]+)=(.*)$/s.exec(value) ?? [];
    if (group !== "drive" && group !== "device") return;
    const things = group === "drive" ? this.settings.drives : this.settings.devices;
    const found = things.find(({ parameters }) => parameters.first("id") === id);
    if (found === undefined) throw misunderstood(origin, `there is no ${group} "${id}" before it`, "usage");
    found.parameters.set(name!, set!);
  }
}

/** The id or node-name in an option, without reading all of it; for people. */
function identifierIn(value: string): string {
  const isJson = value.startsWith("{");
  for (const name of isJson ? ['"node-name":', '"id":'] : ["node-name=", "id="]) {
    const at = value.indexOf(name);
    if (at < 0 || (!isJson && at > 0 && value[at - 1] !== ",")) continue;
    const from = value.slice(at + name.length).trimStart();
    return isJson ? from.slice(1, from.indexOf('"', 1)) : from.split(",", 1)[0]!;
  }
  return "";
}

function blockdevOptions(value: string, origin: string): Map<string, FlatValue> {
  const options = value.startsWith("{") ? readJsonOptions(value) : parseKeyValues(value, "driver");
  if (typeof options === "string") throw misunderstood(origin, options, "usage");
  return options instanceof Parameters ? options.entries() : options;
}

function thingParameters(name: string, value: string, origin: string): Parameters {
  if (!value.startsWith("{")) return parseParameters(value, IMPLIED_NAME[name]);
  const options = readJsonOptions(value);
  if (typeof options === "string") throw misunderstood(origin, options, "usage");
  return new Parameters([...options].map(([key, each]) => [key, each ?? ""]));
}

/** A switch among parameters. @throws {LockvisorError} `usage` for what QEMU would not take either */
export function switchParameter(
  { origin, parameters }: Thing,
  name: string,
  which: "first" | "last" = "last",
): boolean | undefined {
  const text = which === "first" ? parameters.first(name) : parameters.get(name);
  if (text === undefined) return undefined;
  const value = switchOf(text);
  if (value === undefined) throw misunderstood(origin, `${name}=${text} is neither on nor off`, "usage");
  return value;
}
