import type { CommandDefinition, OptionDefinition } from "./definition.ts";
import { SETTING_OPTIONS } from "./definition.ts";
import { EXIT_STATUSES, optionUsage, usageOf } from "./help.ts";

/** lockvisor(8) in the man macros of groff_man(7), from the definitions that the help is made from. */
export function manualPage(commands: readonly CommandDefinition[], version: string): string {
  return [
    `.TH LOCKVISOR 8 "" "lockvisor ${escaped(version)}" "System Manager's Manual"`,
    ".SH NAME",
    escaped("lockvisor - keep two guests from opening the same disk"),
    ".SH SYNOPSIS",
    ...commands.flatMap((command) => [...bold(usageOf(command)), ".br"]),
    ...bold("lockvisor --help | --version"),
    ".SH DESCRIPTION",
    ...paragraphs(DESCRIPTION),
    ".SH COMMANDS",
    ...commands.flatMap(commandSection),
    ".SH SETTINGS",
    ...paragraphs([
      "Every command takes these, before or after its name. A flag goes before the environment variable, that before the key of the same name in the configuration file, that before the default.",
    ]),
    ...SETTING_OPTIONS.flatMap(optionEntry),
    ".SH EXIT STATUS",
    ...paragraphs(["run: the status of CMD, which takes the place of lockvisor. Otherwise:"]),
    ...EXIT_STATUSES.flatMap(([status, meaning]) => entry(status, [meaning])),
    ".SH FILES",
    ...FILES.flatMap(([path, meaning]) => entry(path, [meaning])),
    ".SH ENVIRONMENT",
    ...[...settingVariables(), ...OTHER_VARIABLES].flatMap(([name, meaning]) => entry(name, [meaning])),
    ".SH EXAMPLES",
    ...EXAMPLES.flatMap(({ says, lines }) => [
      ...paragraphs([says]),
      ".PP",
      ".in +4n",
      ".EX",
      ...lines.map(escaped),
      ".EE",
      ".in",
    ]),
    ".SH SEE ALSO",
    ...SEE_ALSO.map(([page, section], index) =>
      `.BR ${escaped(page)} (${section})${index < SEE_ALSO.length - 1 ? "," : ""}`
    ),
    "",
  ].join("\n");
}

const DESCRIPTION = [
  "lockvisor is a lock manager for the disks of virtual machines. While a guest (a QEMU process, or any other command) runs, a lock is held on every disk that it may write, so that no second guest, on this host or on another host that shares the storage, can open the same disk and corrupt it.",
  "The kernel holds the locks, in the guest's own process: lockvisor run takes them and then becomes the command. They end with the guest and only with it; nothing of lockvisor has to go on running. The agent, lockvisor daemon, is for watching: no lock and no other command depends on it.",
  "A lock is on what a disk is, not on what it is called: hard links, symbolic links, bind mounts and the names of block devices lead to the same lock. Locks are flocks on files in a directory, the lockspace; on storage that hosts share (NFSv4, CephFS, GFS2, OCFS2, GlusterFS) it serves all of them.",
  "An access is exclusive (one guest), shared (several guests write, as with a cluster filesystem) or readonly. Shared and readonly go together with each other, exclusive with nothing.",
];

const FILES: readonly (readonly [string, string])[] = [
  ["/etc/lockvisor/lockvisor.toml", "The configuration. It need not exist."],
  [
    "/var/lib/lockvisor/lockspace",
    "The lockspace, unless another one is set; for users other than root $XDG_STATE_HOME/lockvisor/lockspace. Only this one is made at first use; others are made by lockvisor init.",
  ],
  ["LOCKSPACE/lockspace.json", "Marks a directory as a lockspace."],
  [
    "LOCKSPACE/KEY.a, LOCKSPACE/KEY.b",
    "The lock files of a key, always empty. Nothing but lockvisor gc may remove them.",
  ],
  [
    "LOCKSPACE/KEY.d/state.json",
    "The identity of the key and its generation, which counts the exclusive grants and never goes back. It stays for ever.",
  ],
  [
    "LOCKSPACE/KEY.d/HOST-ID.UUID.json",
    "A note about a holder: for people, never proof. That of a guest that comes in from another host ends in .incoming.json.",
  ],
  [
    "LOCKSPACE/KEY.d/UUID.migration.json",
    "What a guest that leaves offers to whoever has its ticket: the hash of that, and until when.",
  ],
  [
    "/run/lockvisor/guests/UUID.json",
    "The record of a guest of this host; for users other than root below $XDG_RUNTIME_DIR/lockvisor.",
  ],
  ["LOCKSPACE/audit.log", "One line of JSON for each break, by whichever host."],
  ["/run/lockvisor/lockvisor.sock", "The socket of the agent: root's, and the group lockvisor's."],
  ["/etc/lockvisor/hooks.d", "The programs that the agent tells of events."],
  ["/etc/lockvisor/guests/NAME.conf", "A guest of the unit lockvisor-guest@NAME.service."],
  ["/etc/machine-id", "Names this host, unless host-id is set. Cloned machines must set it."],
];

const OTHER_VARIABLES: readonly (readonly [string, string])[] = [
  [
    "LOCKVISOR_AGENT_SOCKET, LOCKVISOR_AGENT_LISTEN, LOCKVISOR_AGENT_AUDIT_INTERVAL, LOCKVISOR_AGENT_HOOKS, LOCKVISOR_AGENT_HOOK_TIMEOUT",
    "As the options of lockvisor daemon.",
  ],
  ["LOCKVISOR_DEBUG", "When it is not empty, errors are shown with the place in the program."],
  ["NO_COLOR", "When it is not empty, no colours are used."],
  ["XDG_STATE_HOME, XDG_RUNTIME_DIR", "Where the directories of users other than root are."],
];

const EXAMPLES: readonly { says: string; lines: readonly string[] }[] = [
  {
    says: "Start a guest under lock:",
    lines: [
      "lockvisor run --name vm1 --disk /images/vm1.qcow2 -- \\",
      "    qemu-system-x86_64 -drive file=/images/vm1.qcow2,if=virtio",
    ],
  },
  {
    says: "Make a lockspace on shared storage and use it on every host:",
    lines: [
      "lockvisor init /images/.lockspace",
      `echo 'lockspace = "/images/.lockspace"' >> /etc/lockvisor/lockvisor.toml`,
    ],
  },
  { says: "Who has the disk?", lines: ["lockvisor inspect /images/vm1.qcow2"] },
  {
    says: "Follow what happens, with an agent that runs:",
    lines: ["curl -N --unix-socket /run/lockvisor/lockvisor.sock http://localhost/v1/events?last=20"],
  },
  {
    says: "Move a guest to another host, whoever drives QEMU (lockvisor(8) on both hosts):",
    lines: [
      "lockvisor migrate prepare vm1 --to ssh://hv2 --ticket vm1.ticket           # on hv1",
      "lockvisor migrate in --ticket vm1.ticket --qmp /run/vm1.qmp -- qemu... -incoming ...   # on hv2",
      "lockvisor migrate complete vm1                                # on both, when QEMU has done it",
    ],
  },
  { says: "Is everything in order on this host?", lines: ["lockvisor doctor"] },
];

const SEE_ALSO: readonly (readonly [string, number])[] = [
  ["flock", 1],
  ["qemu", 1],
  ["flock", 2],
  ["pidfd_getfd", 2],
  ["nfs", 5],
  ["proc_locks", 5],
  ["sanlock", 8],
  ["virtlockd", 8],
];

/** The variables that the summaries of the settings name. */
function settingVariables(): (readonly [string, string])[] {
  return SETTING_OPTIONS.flatMap(({ name, summary }) => {
    const variable = /LOCKVISOR_[A-Z_]+/.exec(summary)?.[0];
    return variable === undefined ? [] : [[variable, `As --${name}. Empty counts as unset.`] as const];
  });
}

function commandSection(command: CommandDefinition): string[] {
  const [first, ...rest] = command.summary;
  return [
    `.SS ${quoted(usageOf(command).replace(/^lockvisor /, ""))}`,
    ...paragraphs([`${first!.toUpperCase()}${rest.join("")}.`, ...command.details ?? []]),
    ...command.options.flatMap(optionEntry),
  ];
}

function optionEntry(option: OptionDefinition): string[] {
  const notes = [
    option.choices === undefined ? undefined : `One of ${option.choices.join(", ")}.`,
    option.default === undefined ? undefined : `Default: ${option.default}.`,
    option.occurs === "repeatedly" ? "May be given several times." : undefined,
  ].filter((note) => note !== undefined);
  return entry(optionUsage(option), [`${option.summary}.`, ...notes]);
}

/** A tagged paragraph. */
function entry(tag: string, sentences: readonly string[]): string[] {
  return [".TP", ...bold(tag), ...sentences.map(escaped)];
}

function paragraphs(texts: readonly string[]): string[] {
  return texts.flatMap((text) => [".PP", escaped(text)]);
}

function bold(text: string): string[] {
  return [`.B ${quoted(text)}`];
}

/** A macro's argument: in quotation marks, those inside as a character of their own. */
function quoted(text: string): string {
  return `"${escaped(text)}"`;
}

const CHARACTERS: Record<string, string> = {
  "\\": "\\e",
  "-": "\\-",
  "'": "\\(aq",
  '"': "\\(dq",
  "^": "\\(ha",
  "~": "\\(ti",
  "`": "\\(ga",
};

/** Text that roff is to print as it stands, on one line; groff_char(7). No line may begin with a control character. */
function escaped(text: string): string {
  const line = text.replaceAll(/[\\\-'"^~`]/g, (character) => CHARACTERS[character]!);
  return /^[.']/.test(line) ? `\\&${line}` : line;
}
