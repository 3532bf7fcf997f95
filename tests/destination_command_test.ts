import assert from "node:assert/strict";
import fc from "fast-check";
import { LockvisorError } from "../lib/errors.ts";
import { destinationCommand, parseQemuOption } from "../lib/migration/destination_command.ts";
import { ownPaths } from "../lib/migration/own_paths.ts";
import { mapPath, mapValue, parsePathMapping } from "../lib/migration/path_map.ts";
import { readCommand, valueParts, writeCommand } from "../lib/migration/qemu_options.ts";
import { shellWord, shellWords } from "../lib/migration/shell_words.ts";

const changes = (given: { set?: string[]; add?: string[]; map?: string[] }) => ({
  set: (given.set ?? []).map((text) => parseQemuOption("--set", text)),
  add: (given.add ?? []).map((text) => parseQemuOption("--add", text)),
  map: (given.map ?? []).map((text) => parsePathMapping("--map", text)),
  incoming: "defer",
});

/** The source's command, what is to be changed, and the destination's without its `-incoming defer -S`. */
const COMMANDS: [string, Parameters<typeof changes>[0], string][] = [
  ["qemu -m 16", {}, "qemu -m 16"],
  ["qemu -incoming defer -m 16 -S", {}, "qemu -m 16"],
  ["qemu --incoming tcp:0:4444 --S", {}, "qemu"],
  ["qemu -daemonize -m 16", {}, "qemu -m 16"],
  ["qemu -name -incoming -m 16", {}, "qemu -name -incoming -m 16"],
  ["nice -S qemu-system-x86_64 -S -m 16", {}, "nice -S qemu-system-x86_64 -m 16"],
  ["/opt/emulator -S -m 16", {}, "/opt/emulator -m 16"],
  ["setpriv --reuid 7 /usr/bin/qemu-kvm -S", {}, "setpriv --reuid 7 /usr/bin/qemu-kvm"],
  ["qemu -m 16 -m 32 -smp 1", { set: ["m=64"] }, "qemu -m 64 -smp 1"],
  ["qemu --m 16", { set: ["--m=64"] }, "qemu -m 64"],
  ["qemu -smp 1", { set: ["display=none", "nodefaults"] }, "qemu -smp 1 -display none -nodefaults"],
  ["qemu -nodefaults -nodefaults", { set: ["nodefaults"] }, "qemu -nodefaults"],
  ["qemu -vnc :0", { add: ["vnc=:1,to=9"] }, "qemu -vnc :0 -vnc :1,to=9"],
  ["qemu -append a=/x/b", { map: ["/x=/y"] }, "qemu -append a=/y/b"],
  ["qemu -qmp unix:/x/s,server=on", { map: ["/x=/y"] }, "qemu -qmp unix:/y/s,server=on"],
  ["qemu -kernel /x,1/k", { map: ["/x,1=/y"] }, "qemu -kernel /y/k"],
  ["qemu -drive file=/x,,1/k,if=ide", { map: ["/x,1=/y,2"] }, "qemu -drive file=/y,,2/k,if=ide"],
  ["qemu /x/disk", { map: ["/x=/y"] }, "qemu /y/disk"],
  ["/x/qemu -m 1", { map: ["/x=/y"] }, "/y/qemu -m 1"],
  ["qemu -drive file=/x/a -m 1", { map: ["/x=/y"], set: ["drive=file=/x/b"] }, "qemu -drive file=/x/b -m 1"],
  [
    `qemu -blockdev {"driver":"qcow2","file":{"filename":"/x/a","size":9007199254740993}}`,
    { map: ["/x=/y"] },
    `qemu -blockdev {"driver":"qcow2","file":{"filename":"/y/a","size":9007199254740993}}`,
  ],
];

for (const [source, given, wanted] of COMMANDS) {
  Deno.test(`destination's command: ${source} ${JSON.stringify(given)}`, () => {
    const command = destinationCommand(source.split(" "), changes(given));
    assert.equal(command.join(" "), `${wanted} -incoming defer -S`);
  });
}

const word = fc.oneof(
  fc.constantFrom(
    "-S",
    "-m",
    "--m",
    "-incoming",
    "-drive",
    "a,b=,,c",
    "/a/b",
    "-",
    "",
    "file=/a,,b,x=y",
    "defer",
    "=",
  ),
  fc.string(),
).filter((text) => !text.includes("\0"));

Deno.test("a command that is taken apart and put together is the same, and so is an option's value", () => {
  fc.assert(fc.property(fc.array(word), (words) => {
    assert.deepEqual(writeCommand(readCommand(words)), words);
    for (const text of words) assert.equal(valueParts(text).map((part) => part.text).join(","), text);
  }));
});

Deno.test("the destination's command of a destination's command is itself: a guest may move on, and back", () => {
  fc.assert(fc.property(fc.array(word).map((words) => ["qemu", ...words]), (source) => {
    // Without the value that it wants, the last option is none of QEMU's.
    fc.pre(readCommand(source).every((each) => each.kind === "other" || writeCommand([each]).length === 2));
    const there = destinationCommand(source, changes({}));
    assert.deepEqual(destinationCommand(there, changes({})), there);
    assert.deepEqual(there.slice(-3), ["-incoming", "defer", "-S"]);
  }));
});

Deno.test("mapped there and back, a command is as before", () => {
  const path = fc.array(fc.constantFrom("a", "b,c", "d=e", "f g", `h"i`), { minLength: 1 }).map((parts) =>
    `/x/${parts.join("/")}`
  );
  const text = path.chain((each) =>
    fc.constantFrom(
      each,
      `file=${each.replaceAll(",", ",,")},if=none`,
      `unix:${each.replaceAll(",", ",,")},server=on`,
      JSON.stringify({ driver: "file", filename: each }),
    )
  );
  fc.assert(fc.property(fc.array(text), (texts) => {
    const source = ["qemu", ...texts.flatMap((each) => ["-drive", each])];
    const there = destinationCommand(source, changes({ map: ["/x=/other,place"] }));
    const back = destinationCommand(there, changes({ map: ["/other,place=/x"] }));
    assert.deepEqual(back.slice(0, -3), source);
    assert.ok(there.every((each) => !/(^|[=:"])\/x\//.test(each)), there.join("\n"));
  }));
});

const VALUES: [string, string][] = [
  ["/x", "/y"],
  ["/x/", "/y/"],
  ["/xx/a", "/xx/a"],
  ["/a/x", "/a/x"],
  ["/x/b/c", "/z/c"],
  ["/q/a", "/a"],
  ["/q", "/"],
  ["unix:/x/s", "unix:/y/s"],
  ["file:rw:/x/s", "file:rw:/y/s"],
  ["file:///x/s", "file:///y/s"],
  ["nbd:unix:/x/s:exportname=/x", "nbd:unix:/y/s:exportname=/x"],
  ["nbd:unix:/x:exportname=a", "nbd:unix:/y:exportname=a"],
  ["nbd+unix:///x/name?socket=/x/s&a=b", "nbd+unix:///x/name?socket=/y/s&a=b"],
  ["http://x/x", "http://x/x"],
  [`json:{"filename": "/x/a\\"b"}`, `json:{"filename": "/y/a\\"b"}`],
  [`{"a":"\\u002fx/c"}`, `{"a":"/y/c"}`],
  [`{"a":["/x", 1.50, "no"]}`, `{"a":["/y", 1.50, "no"]}`],
  ["x", "x"],
  ["", ""],
];

for (const [value, wanted] of VALUES) {
  Deno.test(`paths in a value are mapped: ${value}`, () => {
    const map = ["/x=/y", "/x/b=/z", "/y=/never", "/q=/"].map((text) => parsePathMapping("--map", text));
    assert.equal(mapValue(value, map), wanted);
  });
}

Deno.test("a mapping has an equals sign wherever a path may have one", () => {
  assert.deepEqual(parsePathMapping("--map", "/a=b/=/c=d/"), { from: "/a=b", to: "/c=d" });
  assert.equal(mapPath("/a=b/c", [{ from: "/a=b", to: "/c=d" }]), "/c=d/c");
  for (const text of ["", "/a", "a=/b", "/a=b", "=/a", "/=/a", "//=/a", "/a\0=/b"]) {
    assert.throws(() => parsePathMapping("--map", text), isUsage, text);
  }
});

Deno.test("an option of QEMU's is refused that the migration gives itself, or whose value does not fit", () => {
  for (
    const text of ["incoming=defer", "S", "-S", "daemonize", "m", "nodefaults=x", "", "=x", "-", "a b=c"]
  ) {
    assert.throws(() => parseQemuOption("--set", text), isUsage, text);
  }
  assert.deepEqual(parseQemuOption("--set", "append="), { name: "append", value: "" });
});

const OWN: [string, string[]][] = [
  ["qemu -qmp unix:/s,server=on,wait=off", ["/s"]],
  ["qemu -qmp unix:/s,,1,server", ["/s,1"]],
  ["qemu -monitor unix:/s", []],
  ["qemu -chardev socket,id=c,path=/s,server=on -mon c", ["/s"]],
  ["qemu -chardev socket,id=c,path=/vhost", []],
  ["qemu -pidfile /p,1 -kernel /k", ["/p,1"]],
  ["qemu -vnc unix:/v", ["/v"]],
  ["qemu -vnc :0 -qmp tcp:0:1,server=on -serial stdio", []],
];

for (const [command, wanted] of OWN) {
  Deno.test(`what only one QEMU of a host can have: ${command}`, () => {
    assert.deepEqual(ownPaths(command.split(" ")), wanted);
  });
}

Deno.test("words are quoted so that a shell gives them back", async () => {
  const words = [
    "a",
    "",
    "a b",
    "it's",
    "$HOME",
    "`x`",
    "\\",
    '"',
    "*",
    "~",
    "a\nb",
    "-n",
    "é",
    "!x",
    ";",
    "#a",
    "=a",
  ];
  const script = `printf '%s\\0' ${shellWords(words)}`;
  const { stdout } = await new Deno.Command("sh", { args: ["-c", script] }).output();
  assert.deepEqual(new TextDecoder().decode(stdout).split("\0").slice(0, -1), words);
  assert.equal(shellWord("/usr/bin/qemu"), "/usr/bin/qemu");
});

function isUsage(error: unknown): boolean {
  return error instanceof LockvisorError && error.code === "usage";
}
