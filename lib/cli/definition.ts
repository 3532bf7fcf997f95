import type { CliContext } from "./context.ts";
import type { Invocation } from "./parse.ts";

/** An option of a command: `--name`, or `--name VALUE` when it has a placeholder. */
export interface OptionDefinition {
  name: string;
  /** What stands for the value in help texts, such as `PATH`; absent for an option without a value. */
  placeholder?: string;
  /** `optional`: `--name` alone means something too, and a value is given as `--name=VALUE`. */
  value?: "required" | "optional";
  occurs?: "once" | "repeatedly";
  choices?: readonly string[];
  default?: string;
  summary: string;
}

/** An argument that is no option. */
export interface ArgumentDefinition {
  name: string;
  presence: "required" | "optional" | "repeated";
  /** All that it may be; for help and completion. */
  choices?: readonly string[];
}

/** A subcommand: what it takes, what it says in its help, and what it does. Help, manual and completion are made from this. */
export interface CommandDefinition {
  name: string;
  summary: string;
  arguments: readonly ArgumentDefinition[];
  /** `taken`: a command of the user's own follows after `--`. */
  userCommand?: "taken";
  options: readonly OptionDefinition[];
  /** Sentences after the table of options. */
  details?: readonly string[];
  /** Carries it out. Resolves to the exit status. @throws {LockvisorError} */
  run(invocation: Invocation, context: CliContext): Promise<number> | number;
}

/** The settings that every command takes, before or after its name. */
export const SETTING_OPTIONS: readonly OptionDefinition[] = [
  {
    name: "config",
    placeholder: "FILE",
    summary: "configuration file (LOCKVISOR_CONFIG; default /etc/lockvisor/lockvisor.toml)",
  },
  { name: "lockspace", placeholder: "DIR", summary: "directory with the lock files (LOCKVISOR_LOCKSPACE)" },
  {
    name: "runtime-dir",
    placeholder: "DIR",
    summary: "directory with the guests' records (LOCKVISOR_RUNTIME_DIR)",
  },
  {
    name: "host-id",
    placeholder: "ID",
    summary: "this host's name in identities (LOCKVISOR_HOST_ID; default /etc/machine-id)",
  },
  {
    name: "shared-storage",
    placeholder: "WHAT",
    summary:
      "a disk on shared storage with a local lockspace: warn, refuse or ignore (LOCKVISOR_SHARED_STORAGE)",
  },
  { name: "readonly", placeholder: "WHAT", summary: "readonly disks: lock or none (LOCKVISOR_READONLY)" },
  {
    name: "enforce",
    placeholder: "WHAT",
    summary: "a disk that somebody else has: refuse the guest, or warn and go without (LOCKVISOR_ENFORCE)",
  },
  {
    name: "storage",
    placeholder: "ID=PATH",
    occurs: "repeatedly",
    summary: "a directory that is the same storage on every host (LOCKVISOR_STORAGE)",
  },
];

/** Options that several commands share. */
export const JSON_OPTION: OptionDefinition = { name: "json", summary: "print JSON" };
export const DISK_OPTION: OptionDefinition = {
  name: "disk",
  placeholder: "PATH[,access=ACCESS]",
  occurs: "repeatedly",
  summary: "a disk; ACCESS is exclusive (default), shared or readonly; a comma in PATH is doubled",
};
export const LEASE_OPTION: OptionDefinition = {
  name: "lease",
  placeholder: "LOCKSPACE:KEY[,access=ACCESS]",
  occurs: "repeatedly",
  summary: "a lease: any name that guests agree on",
};
