import assert from "node:assert/strict";
import fc from "fast-check";
import { COMMANDS } from "../lib/cli/commands.ts";
import { type CommandDefinition, SETTING_OPTIONS } from "../lib/cli/definition.ts";
import { parseDuration } from "../lib/config/duration.ts";
import { commandHelp, EXIT_STATUSES, groupHelp, optionUsage, programHelp } from "../lib/cli/help.ts";
import { type Invocation, parseCommandLine } from "../lib/cli/parse.ts";
import { LockvisorError } from "../lib/errors.ts";
import { VERSION } from "../lib/version.ts";
import { World } from "./support/world.ts";

/** Commands of every shape that a definition can have. */
const SHAPES: CommandDefinition[] = [
  {
    name: "start",
    summary: "start something",
    arguments: [],
    userCommand: "taken",
    options: [
      { name: "name", placeholder: "NAME", summary: "a name" },
      { name: "disk", placeholder: "PATH", occurs: "repeatedly", summary: "a disk" },
      { name: "wait", placeholder: "TIME", value: "optional", summary: "wait" },
      { name: "mode", placeholder: "MODE", choices: ["soft", "hard"], summary: "a mode" },
      { name: "dry-run", summary: "only say so" },
    ],
    run: () => 0,
  },
  {
    name: "show",
    summary: "show something",
    arguments: [{ name: "WHAT", presence: "required" }, { name: "HOW", presence: "optional" }],
    options: [{ name: "json", summary: "print JSON" }],
    run: () => 0,
  },
  {
    name: "list",
    summary: "list things",
    arguments: [{ name: "THING", presence: "repeated" }],
    options: [],
    run: () => 0,
  },
  {
    name: "move out",
    summary: "move a thing away",
    arguments: [{ name: "THING", presence: "required" }],
    options: [{ name: "json", summary: "print JSON" }],
    run: () => 0,
  },
  {
    name: "move back",
    summary: "have it back",
    arguments: [],
    userCommand: "taken",
    options: [],
    run: () => 0,
  },
];

/** What a command line means, as plain data. */
function parsed(...args: string[]): Record<string, unknown> {
  const request = parseCommandLine(args, SHAPES);
  if (request.kind === "version") return { kind: "version" };
  if (request.kind === "help") {
    const { command, group } = request;
    return {
      kind: "help",
      command: command?.name,
      ...group === undefined ? {} : { group: group.map(({ name }) => name) },
    };
  }
  return { command: request.command.name, ...plain(request.invocation, request.command) };
}

function plain({ options, arguments: words, userCommand }: Invocation, command: CommandDefinition) {
  const given = [...command.options, ...SETTING_OPTIONS].filter(({ name }) => options.isGiven(name))
    .map(({ name }): [string, string[]] => [name, options.texts(name)]);
  return {
    ...given.length > 0 ? { options: Object.fromEntries(given) } : {},
    ...words.length > 0 ? { arguments: words } : {},
    ...userCommand.length > 0 ? { userCommand } : {},
  };
}

const MEANINGS: [string[], Record<string, unknown>][] = [
  [["start"], { command: "start" }],
  [["start", "--name", "a"], { command: "start", options: { name: ["a"] } }],
  [["start", "--name=a"], { command: "start", options: { name: ["a"] } }],
  [["start", "--name=-a"], { command: "start", options: { name: ["-a"] } }],
  [["start", "--name=a=b"], { command: "start", options: { name: ["a=b"] } }],
  [["start", "--disk", "a", "--disk=b"], { command: "start", options: { disk: ["a", "b"] } }],
  [["start", "--wait"], { command: "start", options: { wait: [""] } }],
  [["start", "--wait=5s"], { command: "start", options: { wait: ["5s"] } }],
  [["start", "--wait", "--name", "a"], { command: "start", options: { name: ["a"], wait: [""] } }],
  [["start", "--mode", "soft"], { command: "start", options: { mode: ["soft"] } }],
  [["start", "--dry-run"], { command: "start", options: { "dry-run": [""] } }],
  [["start", "--", "qemu", "--name", "x", "--"], {
    command: "start",
    userCommand: ["qemu", "--name", "x", "--"],
  }],
  [["start", "--"], { command: "start" }],
  [["start", "--", "x", "--help"], { command: "start", userCommand: ["x", "--help"] }],
  [["show", "a"], { command: "show", arguments: ["a"] }],
  [["show", "a", "b", "--json"], { command: "show", options: { json: [""] }, arguments: ["a", "b"] }],
  [["show", "--", "--json"], { command: "show", arguments: ["--json"] }],
  [["show", "-"], { command: "show", arguments: ["-"] }],
  [["list"], { command: "list" }],
  [["list", "a", "b", "c"], { command: "list", arguments: ["a", "b", "c"] }],
  [["--lockspace", "/l", "list"], { command: "list", options: { lockspace: ["/l"] } }],
  [["--lockspace", "start", "list"], { command: "list", options: { lockspace: ["start"] } }],
  [["--lockspace=/l", "list", "--host-id", "h"], {
    command: "list",
    options: { lockspace: ["/l"], "host-id": ["h"] },
  }],
  [["list", "--storage", "a=/a", "--storage", "b=/b"], {
    command: "list",
    options: { storage: ["a=/a", "b=/b"] },
  }],
  [["--version"], { kind: "version" }],
  [["--help"], { kind: "help", command: undefined }],
  [["-h"], { kind: "help", command: undefined }],
  [["help"], { kind: "help", command: undefined }],
  [["help", "show"], { kind: "help", command: "show" }],
  [["show", "--help"], { kind: "help", command: "show" }],
  [["--help", "show"], { kind: "help", command: "show" }],
  [["show", "-h", "--bogus"], { kind: "help", command: "show" }],
  [["help", "show", "more"], { kind: "help", command: "show" }],
  [["move", "out", "a"], { command: "move out", arguments: ["a"] }],
  [["--lockspace", "move", "move", "out", "--json", "a"], {
    command: "move out",
    options: { json: [""], lockspace: ["move"] },
    arguments: ["a"],
  }],
  [["move", "back", "--", "move", "out"], { command: "move back", userCommand: ["move", "out"] }],
  [["show", "move", "out"], { command: "show", arguments: ["move", "out"] }],
  [["move", "out", "--help"], { kind: "help", command: "move out" }],
  [["--help", "move", "out"], { kind: "help", command: "move out" }],
  [["help", "move", "out"], { kind: "help", command: "move out" }],
  ...[["move", "--help"], ["move", "-h"], ["--help", "move"], ["-h", "move"], ["help", "move"]].map((
    args,
  ): [string[], Record<string, unknown>] => [args, {
    kind: "help",
    command: undefined,
    group: ["move out", "move back"],
  }]),
];

Deno.test("command lines that mean something", () => {
  for (const [args, meaning] of MEANINGS) assert.deepEqual(parsed(...args), meaning, args.join(" "));
});

const FAULTS: [string[], RegExp][] = [
  [[], /which command\?/],
  [[""], /there is no command ""/],
  [["nothing"], /there is no command "nothing"/],
  [["Start"], /there is no command "Start"/],
  [["help", "nothing"], /there is no command "nothing"/],
  [["toString"], /there is no command "toString"/],
  [["move"], /^move: which of out, back\? see: lockvisor move --help$/],
  [["move", "--json"], /move: which of out, back\?/],
  [["move", "--lockspace", "/l", "out", "a"], /move: which of out, back\?/],
  [["move", "over"], /move: which of out, back\?/],
  [["move", ""], /move: which of out, back\?/],
  [["move", "--", "out", "a"], /move: which of out, back\?/],
  [["help", "move", "over"], /move: which of out, back\?/],
  [["out"], /there is no command "out"/],
  [["move out", "a"], /there is no command "move out"/],
  [["help", "move out"], /there is no command "move out"/],
  [["move", "out"], /^move out: THING is missing; see: lockvisor move out --help$/],
  [["start", "--nam", "x"], /start: unknown option --nam;/],
  [["start", "--Name", "x"], /unknown option --Name/],
  [["start", "--__proto__", "x"], /unknown option --__proto__/],
  [["start", "-n", "x"], /unknown option -n/],
  [["start", "-name", "x"], /unknown option -name/],
  [["start", "--=x"], /unknown option --/],
  [["start", "---name=x"], /unknown option ---name/],
  [["start", "--name"], /--name needs a value: --name NAME/],
  [["start", "--name="], /--name needs a value/],
  [["start", "--name", ""], /--name needs a value/],
  [
    ["start", "--name", "--dry-run"],
    /--name needs a value; one that begins with "-" is written --name=--dry-run/,
  ],
  [["start", "--name", "--", "x"], /--name needs a value/],
  [["start", "--name", "a", "--name", "a"], /--name is given twice/],
  [["start", "--dry-run", "--dry-run"], /--dry-run is given twice/],
  [["start", "--dry-run=no"], /--dry-run takes no value/],
  [["start", "--dry-run="], /--dry-run takes no value/],
  [["start", "--mode", "medium"], /--mode "medium" is none of: soft, hard/],
  [["start", "--wait", "5s"], /unexpected argument "5s"; the guest's command follows after --/],
  [["--lockspace", "/l", "list", "--lockspace", "/l"], /--lockspace is given twice/],
  [["--lockspace"], /which command\?/],
  [["start", "x"], /unexpected argument "x"/],
  [["show"], /show: WHAT is missing; see: lockvisor show --help/],
  [["show", "a", "b", "c"], /unexpected argument "c"/],
  [["show", "a", "--", "b", "c"], /unexpected argument "c"/],
];

Deno.test("command lines that are faulty are told which word is wrong", () => {
  for (const [args, says] of FAULTS) {
    assert.throws(() => parsed(...args), (error: unknown) => {
      assert.ok(error instanceof LockvisorError, `${args.join(" ")}: ${error}`);
      assert.equal(error.code, "usage");
      assert.match(error.message, says);
      return true;
    }, args.join(" "));
  }
});

const VALUE = fc.string({ unit: "grapheme", minLength: 1, maxLength: 30 });

Deno.test("a value comes through as it was written, whatever it is", () => {
  fc.assert(fc.property(VALUE, fc.array(VALUE), (name, disks) => {
    const args = ["start", `--name=${name}`, ...disks.map((disk) => `--disk=${disk}`)];
    const options = { name: [name], ...disks.length > 0 ? { disk: disks } : {} };
    assert.deepEqual(parsed(...args), { command: "start", options });
    if (!name.startsWith("-")) {
      assert.deepEqual(parsed("start", "--name", name), { command: "start", options: { name: [name] } });
    }
  }));
});

Deno.test("the guest's command comes through as it was written, whatever it is", () => {
  const words = fc.array(fc.oneof(fc.string(), fc.constantFrom("--", "--help", "--name", "-h", "")), {
    minLength: 1,
  });
  fc.assert(fc.property(words, (userCommand) => {
    assert.deepEqual(parsed("start", "--dry-run", "--", ...userCommand), {
      command: "start",
      options: { "dry-run": [""] },
      userCommand,
    });
  }));
});

Deno.test("settings mean the same before the command and after it", () => {
  const setting = fc.constantFrom("lockspace", "runtime-dir", "host-id", "readonly");
  const form = fc.constantFrom("joined", "apart");
  const settings = fc.uniqueArray(fc.tuple(setting, VALUE.filter((text) => !text.startsWith("-")), form), {
    selector: ([name]) => name,
  });
  fc.assert(fc.property(settings, fc.nat(4), (given, cut) => {
    const words = given.map(([name, value, form]) =>
      form === "joined" ? [`--${name}=${value}`] : [`--${name}`, value]
    );
    const mixed = parsed(...words.slice(0, cut).flat(), "show", ...words.slice(cut).flat(), "x");
    assert.deepEqual(mixed, parsed("show", "x", ...words.flat()));
  }));
});

Deno.test("no words whatever lead to anything but an answer or a usage error", () => {
  const known = fc.constantFrom(
    ..."start show list move out back help --help -h --version --name --name= --disk=x --wait --mode soft --dry-run --json -- - x"
      .split(" "),
    ...SETTING_OPTIONS.map(({ name }) => `--${name}`),
  );
  fc.assert(
    fc.property(fc.array(fc.oneof({ weight: 5, arbitrary: known }, fc.string())), (words) => {
      try {
        parsed(...words);
      } catch (error) {
        assert.ok(error instanceof LockvisorError && error.code === "usage", String(error));
        assert.doesNotMatch(error.message, /\p{Cc}/u);
      }
    }),
    { numRuns: 2000 },
  );
});

Deno.test("durations", () => {
  const table: [string, number][] = [
    ["", Infinity],
    ["0", 0],
    ["0s", 0],
    ["500ms", 500],
    ["10", 10_000],
    ["10s", 10_000],
    ["1.5s", 1500],
    ["5m", 300_000],
    ["1h", 3_600_000],
  ];
  for (const [text, ms] of table) assert.equal(parseDuration("--wait", text), ms, text);
  const faults = [
    " ",
    "s",
    "-1",
    "+1",
    "1 s",
    "1d",
    "1S",
    "1e3",
    "0x10",
    ".5s",
    "1.s",
    "1,5s",
    "∞",
    "NaN",
    "1s\n",
    "٣s",
  ];
  for (const text of faults) {
    assert.throws(() => parseDuration("--wait", text), { name: "LockvisorError", code: "usage" }, text);
  }
});

Deno.test("the program's help tells of every command, setting and exit status", () => {
  const help = programHelp(COMMANDS);
  const flat = help.replaceAll(/\s+/g, " ");
  for (const { name, summary } of COMMANDS) assert.ok(flat.includes(` ${name} ${summary}`), name);
  for (const option of SETTING_OPTIONS) {
    assert.ok(flat.includes(`${optionUsage(option)} ${option.summary}`), option.name);
  }
  for (const [status, meaning] of EXIT_STATUSES) assert.ok(flat.includes(`${status} ${meaning}`), status);
  assertReadable(help);
});

for (const command of COMMANDS) {
  Deno.test(`the help of ${command.name} tells of every option and argument`, () => {
    const help = commandHelp(command);
    const flat = help.replaceAll(/\s+/g, " ");
    assert.ok(flat.startsWith(`Usage: lockvisor ${command.name} `), flat);
    for (const option of command.options) {
      assert.ok(flat.includes(`${optionUsage(option)} ${option.summary}`), option.name);
      for (const choice of option.choices ?? []) assert.ok(flat.includes(choice), choice);
      if (option.default !== undefined) assert.ok(flat.includes(`default ${option.default}`), option.name);
    }
    for (const { name } of [...command.arguments, ...SETTING_OPTIONS]) assert.ok(flat.includes(name), name);
    assert.equal(flat.includes("-- CMD ARG..."), command.userCommand === "taken");
    assertReadable(help);
  });
}

function assertReadable(help: string): void {
  assert.ok(help.endsWith("\n"));
  for (const line of help.split("\n")) {
    assert.ok(line.length <= 100, `${line.length} columns: ${line}`);
    assert.equal(line, line.trimEnd());
  }
}

Deno.test("no two options of a command share a name, and none is called help", () => {
  for (const { name, options } of COMMANDS) {
    const names = [...options, ...SETTING_OPTIONS].map((option) => option.name);
    assert.equal(new Set([...names, "help"]).size, names.length + 1, name);
  }
});

Deno.test("help is a result: on standard output, with exit status 0, also where nothing is set up", async () => {
  await using world = await World.create();
  const broken = {
    env: { LOCKVISOR_LOCKSPACE: "/no/such", LOCKVISOR_CONFIG: "/no/such", LOCKVISOR_HOST_ID: "/" },
  };
  const whole = await world.run(["--help"], broken);
  assert.deepEqual([whole.code, whole.stderr, whole.stdout], [0, "", programHelp(COMMANDS)]);
  for (const command of COMMANDS) {
    const words = command.name.split(" ");
    const forms = [[...words, "--help"], [...words, "-h"], ["help", ...words]];
    const results = await Promise.all(forms.map((args) => world.run(args, broken)));
    for (const { code, stderr, stdout } of results) {
      assert.deepEqual([code, stderr, stdout], [0, "", commandHelp(command)]);
    }
  }
});

Deno.test("the help of a first word tells of the commands that begin with it", async () => {
  await using world = await World.create();
  const members = COMMANDS.filter(({ name }) => name.startsWith("migrate "));
  assert.ok(members.length > 5);
  const help = groupHelp(members);
  const flat = help.replaceAll(/\s+/g, " ");
  assert.ok(flat.startsWith("Usage: lockvisor migrate COMMAND "), flat);
  for (const { name, summary } of members) assert.ok(flat.includes(` ${name} ${summary}`), name);
  assertReadable(help);
  for (const args of [["migrate", "--help"], ["help", "migrate"], ["--help", "migrate"]]) {
    const { code, stderr, stdout } = await world.run(args);
    assert.deepEqual([code, stderr, stdout], [0, "", help], args.join(" "));
  }
  for (const args of [["migrate"], ["migrate", "away"], ["help", "migrate", "away"]]) {
    const { code, stderr, stdout } = await world.run(args);
    assert.deepEqual([code, stdout], [64, ""], args.join(" "));
    assert.match(
      stderr,
      /^lockvisor: migrate: which of run, prepare, in, complete, .*\? see: lockvisor migrate --help\n$/,
    );
  }
});

Deno.test("the version is the project's, in every form", async () => {
  await using world = await World.create();
  const text = await world.run(["version"]);
  assert.match(
    text.stdout,
    new RegExp(`^lockvisor ${VERSION.replaceAll(".", "\\.")} \\(deno \\d+\\.\\d+\\.\\d+, .*linux.*\\)\n$`),
  );
  const short = await world.run(["--version"]);
  assert.deepEqual([short.code, short.stdout], [0, `lockvisor ${VERSION}\n`]);
  const json = await world.run(["version", "--json"]);
  assert.deepEqual(Object.keys(JSON.parse(json.stdout)), ["version", "deno", "target"]);
  assert.equal(JSON.parse(json.stdout).version, VERSION);
  assert.equal(text.stderr + short.stderr + json.stderr, "");
});
