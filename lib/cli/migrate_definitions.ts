import { type CommandDefinition, JSON_OPTION, type OptionDefinition } from "./definition.ts";
import { cancel, comeIn, complete, prepare } from "./migrate.ts";
import { cleanup, status } from "./migrate_overview.ts";

const SIDE_OPTION: OptionDefinition = {
  name: "side",
  placeholder: "SIDE",
  choices: ["out", "in"],
  summary: "which side is meant, where the guest migrates within this host",
};

/** The subcommands of `migrate`, in the order of a migration. */
export const MIGRATE_COMMANDS: readonly CommandDefinition[] = [
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
];
