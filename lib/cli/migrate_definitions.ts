import { type CommandDefinition, JSON_OPTION, type OptionDefinition } from "./definition.ts";
import { DEFAULT_DRIVER } from "../manager/registry.ts";
import { cancel, comeIn, complete, prepare } from "./migrate.ts";
import { cleanup, status } from "./migrate_overview.ts";
import { receive } from "./migrate_receive.ts";
import { runMigration } from "./migrate_run.ts";

const SIDE_OPTION: OptionDefinition = {
  name: "side",
  placeholder: "SIDE",
  choices: ["out", "in"],
  summary: "which side is meant, where the guest migrates within this host",
};

/** The subcommands of `migrate`: the whole, then its parts in their order. */
export const MIGRATE_COMMANDS: readonly CommandDefinition[] = [
  {
    name: "migrate run",
    summary: "move a guest to another host while it runs: its locks, its memory, and all that can go wrong",
    arguments: [{ name: "GUEST", presence: "required" }],
    options: [
      {
        name: "to",
        placeholder: "HOSTURI",
        summary:
          "where it goes to: ssh://[USER@]HOST[:PORT], or local: for another QEMU on this host; required",
      },
      {
        name: "map",
        placeholder: "OLD=NEW",
        occurs: "repeatedly",
        summary:
          "what is at OLD here, or below it, is at NEW there; for disks, sockets and all paths of the command",
      },
      {
        name: "set",
        placeholder: "OPTION[=VALUE]",
        occurs: "repeatedly",
        summary: "an option of QEMU's that is another one there, such as display=none",
      },
      {
        name: "add",
        placeholder: "OPTION[=VALUE]",
        occurs: "repeatedly",
        summary: "an option of QEMU's that is there in addition",
      },
      {
        name: "bandwidth",
        placeholder: "SIZE",
        summary: "bytes a second, at most, such as 100M (default: as fast as it goes)",
      },
      {
        name: "downtime-limit",
        placeholder: "DURATION",
        default: "300ms",
        summary: "how long the guest may stand still for the last part of its memory",
      },
      {
        name: "auto-converge",
        summary: "slow the guest down if it changes its memory faster than that can be sent",
      },
      {
        name: "timeout",
        placeholder: "DURATION",
        summary: "give up if its memory has not gone by then (default: never)",
      },
      { name: "dry-run", summary: "print what would move, and its command there; do nothing" },
      { name: "json", summary: "print JSON: a line for each stage and step, the result in the last" },
    ],
    details: [
      "The guest needs its QMP socket (run --qmp), and images that both hosts see. ssh uses your keys and configuration and asks nothing; no port is opened: the memory goes through the same connection. Settings of the lockvisor there may follow HOSTURI: config, runtime-dir, lockspace, host-id and program, as in ssh://hv2?host-id=b&config=/etc/b.toml (percent-encoded).",
      "Disks that were plugged in by disk plug move along, at the places that they have, and devices that have gone since the start are left out; --dry-run shows it.",
      "Whatever fails before the guest is let go there, also Ctrl-C or a lost connection: it stays here, runs on, and has all of its locks. Afterwards it never runs here again. A guest that is paused is paused there. What it writes to its standard streams there is in RUNTIME-DIR/log/UUID.log.",
    ],
    run: runMigration,
  },
  {
    name: "migrate prepare",
    summary: "let a guest leave: give up half of each of its locks, and print the ticket to come in by",
    arguments: [{ name: "GUEST", presence: "required" }],
    options: [
      { name: "to", placeholder: "HOSTURI", summary: "where it goes to, such as ssh://hv2; required" },
      { name: "ticket", placeholder: "FILE", summary: "write the ticket there (0600) and do not print it" },
      {
        name: "expires",
        placeholder: "DURATION",
        default: "10m",
        summary: "how long somebody may come in by the ticket",
      },
      JSON_OPTION,
    ],
    details: [
      "The guest runs on, and its half of each lock keeps everybody else out. The ticket is secret: whoever has it may take the other half, once. Again, as long as nobody has come in: a new ticket, and the earlier one is good no more.",
    ],
    run: prepare,
  },
  {
    name: "migrate in",
    summary: "take what the source has given up, then become the command that waits for the guest",
    arguments: [],
    userCommand: "taken",
    options: [
      {
        name: "ticket",
        placeholder: "FILE",
        summary: "the ticket; - for one line of standard input; required",
      },
      {
        name: "map",
        placeholder: "OLD=NEW",
        occurs: "repeatedly",
        summary: "a disk, or the directory of disks, is called NEW here",
      },
      { name: "qmp", placeholder: "PATH", summary: "the guest's QMP socket here" },
      {
        name: "plugin",
        placeholder: "NAME",
        default: DEFAULT_DRIVER,
        summary: "the driver that the guest is locked by at the source",
      },
      { name: "force-command", summary: "run CMD although it is known to lose the locks" },
    ],
    details: [
      "CMD is a QEMU with -incoming. All disks must be the same here as at the source: on a network filesystem, or below a directory that both hosts declare as storage with the same id. A ticket that was changed or that is another's is refused with 77; one that has expired, was used before or was overtaken by events with 65.",
    ],
    run: comeIn,
  },
  {
    name: "migrate complete",
    summary: "end a migration that has succeeded, on this side of it",
    arguments: [{ name: "GUEST", presence: "required" }],
    options: [
      SIDE_OPTION,
      {
        name: "wait",
        placeholder: "DURATION",
        value: "optional",
        summary: "on the side that the guest came to: wait until the source lets go",
      },
      JSON_OPTION,
    ],
    details: [
      "At the source: its QEMU, which has sent everything, is ended, and so its half of the locks is free. At the destination: the guest gets that half. Either side may be first, and each may be repeated; the destination exits with 75 as long as the source has its half.",
    ],
    run: complete,
  },
  {
    name: "migrate cancel",
    summary: "end a migration that is not to be, on this side of it",
    arguments: [{ name: "GUEST", presence: "required" }],
    options: [SIDE_OPTION, JSON_OPTION],
    details: [
      "At the destination: the process that waits for the guest is ended. At the source: QEMU stops sending, the guest gets back what it gave up, and only then runs on; with 75 while the destination lives. A guest whose QEMU has sent everything is never continued at the source, since it may have run at the destination: 65.",
    ],
    run: cancel,
  },
  {
    name: "migrate status",
    summary: "list the guests that are on their way to or from this host, and what is left to do",
    arguments: [{ name: "GUEST", presence: "optional" }],
    options: [JSON_OPTION],
    run: status,
  },
  {
    name: "migrate cleanup",
    summary: "find the migrations that stopped half-way on this host, and offer to end each",
    arguments: [],
    options: [{ name: "yes", summary: "do it without asking" }, JSON_OPTION],
    details: [
      "Without --yes and without a terminal it only lists them. What it does is what migrate complete and migrate cancel do; it exits with 75 when one of them could not be done now.",
    ],
    run: cleanup,
  },
  {
    name: "migrate receive",
    summary: "what migrate run starts at the destination, and talks to through its standard streams",
    arguments: [],
    options: [],
    run: receive,
  },
];
