import { type CommandDefinition, DISK_OPTION, JSON_OPTION, LEASE_OPTION } from "./definition.ts";
import { GUEST_OPTIONS, LOCK_FAILURE_OPTION } from "./guest_options.ts";
import { adopt } from "./adopt.ts";
import { attach } from "./attach.ts";
import { run as breakLock } from "./break.ts";
import { run as check } from "./check.ts";
import { run as completion } from "./completion.ts";
import { daemon } from "./daemon.ts";
import { DISK_COMMANDS } from "./disk_definitions.ts";
import { run as doctor } from "./doctor.ts";
import { run as gc } from "./gc.ts";
import { run as init } from "./init.ts";
import { run as inspect } from "./inspect.ts";
import { MIGRATE_COMMANDS } from "./migrate_definitions.ts";
import { pause, resume } from "./pause.ts";
import { RECONCILE_COMMAND } from "./reconcile_definition.ts";
import { RUN_COMMAND } from "./run_definition.ts";
import { run as status } from "./status.ts";
import { stop } from "./stop.ts";
import { run as version } from "./version.ts";
import { waitForGuest } from "./wait_for_guest.ts";

/** Every subcommand, in the order of the help text. */
export const COMMANDS: readonly CommandDefinition[] = [
  {
    name: "init",
    summary: "make a lockspace: the directory in which the lock files live",
    arguments: [{ name: "DIR", presence: "required" }],
    options: [JSON_OPTION],
    details: [
      "DIR is new or empty; on storage that hosts share, the lockspace serves all of them. Again on the same: nothing changes.",
    ],
    run: init,
  },
  RUN_COMMAND,
  {
    name: "stop",
    summary: "end a guest, then prove with the kernel that its locks are free",
    arguments: [{ name: "GUEST", presence: "required" }],
    options: [
      { name: "powerdown", summary: "ask the guest's operating system first, as by its power button (QMP)" },
      {
        name: "timeout",
        placeholder: "DURATION",
        default: "30s",
        summary: "how long it may take to end through QMP before it gets SIGTERM",
      },
      {
        name: "kill-after",
        placeholder: "DURATION",
        default: "10s",
        summary:
          "how long after SIGTERM, or after QMP quit that follows a power-down, the next means is used",
      },
      JSON_OPTION,
    ],
    details: [
      "With a QMP socket: quit (after a power-down, if wanted), then SIGTERM, then SIGKILL; without one, or when it does not answer, the signals alone. A guest that has stopped already: 0. Exits with 75 when the guest does not end or a process that inherited its locks still has them.",
    ],
    run: stop,
  },
  {
    name: "wait",
    summary: "wait until a guest has ended",
    arguments: [{ name: "GUEST", presence: "required" }],
    options: [
      { name: "timeout", placeholder: "DURATION", summary: "how long at most (default: for ever)" },
      JSON_OPTION,
    ],
    details: [
      "A guest that has ended already: 0. Past the timeout: 75, since the guest still has its locks.",
    ],
    run: waitForGuest,
  },
  {
    name: "status",
    summary: "list this host's guests and the locks that the kernel shows for them",
    arguments: [{ name: "GUEST", presence: "optional" }],
    options: [{ name: "names", summary: "print the guests' names only, one on a line" }, JSON_OPTION],
    details: [
      "GUEST is a name or a UUID. LOCKS counts the keys that the kernel shows as held by the guest, of those that it was given.",
    ],
    run: status,
  },
  {
    name: "inspect",
    summary: "show the identities of a disk or lease, whether it is locked and by whom",
    arguments: [{ name: "DISK|LEASE", presence: "required" }],
    options: [JSON_OPTION],
    details: [
      "DISK is a path or URI, LEASE is LOCKSPACE:KEY; the lease that every guest has on itself is guest:UUID.",
    ],
    run: inspect,
  },
  {
    name: "check",
    summary: "tell whether locks would be granted now: exit status 0, or 1 with the holders; takes nothing",
    arguments: [],
    options: [DISK_OPTION, LEASE_OPTION, JSON_OPTION],
    run: check,
  },
  {
    name: "break",
    summary: "free the locks of a host that is dead and fenced; never those of a process of this host",
    arguments: [{ name: "DISK|LEASE|GUEST", presence: "required" }],
    options: [
      { name: "reason", placeholder: "TEXT", summary: "why, for the audit log and the journal; required" },
      {
        name: "host-is-fenced",
        placeholder: "HOST",
        occurs: "repeatedly",
        summary: "this host, by name or id, is switched off or cut from the storage: you vouch for it",
      },
      JSON_OPTION,
    ],
    details: [
      "Not needed on one host: a dead guest holds nothing. The lock files are replaced, since a storage server may keep the lock of a dead host, and the generation is counted on. Every break is a line in the lockspace's audit.log and in the journal. Exits with 75 when the lock is held here, or on a host that was not named.",
    ],
    run: breakLock,
  },
  {
    name: "gc",
    summary: "remove the lock files of keys that nobody holds, and the notes of guests that are gone",
    arguments: [],
    options: [{ name: "dry-run", summary: "say what would be removed; remove nothing" }, JSON_OPTION],
    details: [
      "Safe at any time, also while guests start. Each key's state.json stays: its generation must never go back. Exits with 65 when something in the lockspace is not as lockvisor makes it; that is named and left alone.",
    ],
    run: gc,
  },
  {
    name: "doctor",
    summary: "check what locks depend on here: lockspace, filesystem, kernel, permissions, records of guests",
    arguments: [],
    options: [JSON_OPTION],
    details: [
      "One line for each check: ok, warning or failure, what was found and what to do. Exits with 1 if a check fails.",
    ],
    run: doctor,
  },
  {
    name: "daemon",
    summary: "run the host's agent: it watches guests and their locks, and answers on a unix socket",
    arguments: [],
    options: [
      {
        name: "socket",
        placeholder: "PATH",
        summary: "the unix socket (default: lockvisor.sock in the runtime directory)",
      },
      {
        name: "listen",
        placeholder: "ADDRESS:PORT",
        summary: "serve the status page, and whatever only reads, over TCP as well (default: nowhere)",
      },
      { name: "listen-anywhere", summary: "allow --listen on an address that other hosts reach, and read" },
      {
        name: "audit-interval",
        placeholder: "DURATION",
        default: "5s",
        summary: "the time from one look at all locks to the next",
      },
      {
        name: "reconcile-interval",
        placeholder: "DURATION",
        default: "1m",
        summary: "how long a guest goes without a comparison of its locks with what its QEMU has open",
      },
      {
        name: "hooks",
        placeholder: "DIR",
        default: "/etc/lockvisor/hooks.d",
        summary: "the directory with the programs that are told of each event",
      },
      {
        name: "hook-timeout",
        placeholder: "DURATION",
        default: "10s",
        summary: "how long such a program may run",
      },
      {
        name: "log-format",
        placeholder: "FORMAT",
        choices: ["auto", "text", "journal", "json"],
        default: "auto",
        summary: "how lines are written to standard error",
      },
      {
        name: "log-level",
        placeholder: "LEVEL",
        choices: ["debug", "info", "warning", "error"],
        default: "info",
        summary: "the least important lines that are written",
      },
    ],
    details: [
      "Locks do not depend on it, nor does any other command: it may be stopped, killed or replaced at any time, and guests run on with their locks. A lock that a guest has lost is taken again if nobody had it since; otherwise the guest is paused, killed or left alone, as it was started with (run --on-lock-failure).",
      "Root and the group lockvisor may use the socket (0660). GET /openapi.json describes the interface; /v1/events, /metrics and /healthz are in it. socket, listen, audit-interval, reconcile-interval, hooks and hook-timeout are keys of the table [agent] in the configuration file as well, and variables: LOCKVISOR_AGENT_SOCKET and so on.",
      "A program in the directory of the hooks gets each event as a line of JSON on its standard input, and LOCKVISOR_EVENT and LOCKVISOR_GUEST in its environment. auto, for --log-format, is journal under systemd and text elsewhere.",
      "SIGHUP: read the configuration anew, all but socket, listen and runtime-dir. SIGTERM, SIGINT: end. Exits with 69 when another agent watches the same guests, or somebody else has the address.",
    ],
    run: daemon,
  },
  {
    name: "completion",
    summary: "print a script with which a shell completes commands, options and the names of guests",
    arguments: [{ name: "SHELL", presence: "required", choices: ["bash", "zsh", "fish"] }],
    options: [],
    details: [
      "SHELL is bash, zsh or fish.",
      "bash: lockvisor completion bash > /etc/bash_completion.d/lockvisor",
      "zsh: lockvisor completion zsh > /usr/local/share/zsh/site-functions/_lockvisor",
      "fish: lockvisor completion fish > /etc/fish/completions/lockvisor.fish",
    ],
    run: (invocation, context) => completion(invocation, context, COMMANDS),
  },
  {
    name: "version",
    summary: "print the version",
    arguments: [],
    options: [JSON_OPTION],
    run: version,
  },
  {
    name: "attach",
    summary: "find the guests that run again, mend their records, and tell which have lost a lock",
    arguments: [{ name: "GUEST", presence: "repeated" }],
    options: [
      {
        name: "on-lost",
        placeholder: "ACTION",
        choices: ["leave", "pause", "kill"],
        default: "leave",
        summary: "what becomes of a guest that has lost a lock",
      },
      JSON_OPTION,
    ],
    details: [
      "Prints each guest's pid and what was mended: records are made again from the notes in the lockspace and from what the kernel shows, a guest that forked is followed, an acquire that was cut off is finished. A lost lock is taken again if nobody had it in between. Exits with 75 while a guest runs, or is paused, without a lock that it should have.",
    ],
    run: attach,
  },
  {
    name: "adopt",
    summary: "make a guest of a process that runs already: lock its disks and leases, all or none",
    arguments: [],
    options: [
      { name: "pid", placeholder: "PID", summary: "the process; required" },
      ...GUEST_OPTIONS,
      {
        name: "qmp",
        placeholder: "PATH",
        summary: "the guest's QMP socket; QEMU itself holds the locks then",
      },
      LOCK_FAILURE_OPTION,
      JSON_OPTION,
    ],
    details: [
      "The process has used its disks without locks until now; if somebody else has one, that is a refusal (75) and nothing is locked. The locks are held beside the process and end with it. Again for the same process and name: what is new is locked.",
    ],
    run: adopt,
  },
  ...DISK_COMMANDS,
  RECONCILE_COMMAND,
  {
    name: "pause",
    summary: "pause a guest, which keeps its locks unless told otherwise",
    arguments: [{ name: "GUEST", presence: "required" }],
    options: [
      { name: "release", summary: "give the locks up until the guest resumes, and print their generations" },
      JSON_OPTION,
    ],
    details: [
      "With a QMP socket the guest's processors are stopped first. Without one that is yours to do, before --release.",
    ],
    run: pause,
  },
  {
    name: "resume",
    summary: "let a paused guest run on, after its locks are back",
    arguments: [{ name: "GUEST", presence: "required" }],
    options: [
      { name: "accept-changes", summary: "also when somebody else has had a disk in between" },
      JSON_OPTION,
    ],
    details: [
      "A guest that gave its locks up gets all of them back, or stays paused: with 75 when somebody has a disk, or has had it since.",
    ],
    run: resume,
  },
  ...MIGRATE_COMMANDS,
];
