import assert from "node:assert/strict";
import fc from "fast-check";
import { LockvisorError } from "../lib/errors.ts";
import { splitCommandLine } from "../lib/qemu/command_line.ts";
import { parseConfigFile } from "../lib/qemu/config_file.ts";
import { readJsonOptions } from "../lib/qemu/json_options.ts";
import { takesValue } from "../lib/qemu/option_names.ts";
import { formatValue, parseKeyValues, parseParameters, switchOf } from "../lib/qemu/option_string.ts";
import { findQemu } from "../lib/qemu/program.ts";

const OPTIONS: [string, string | undefined, Record<string, string>][] = [
  ["file=a", undefined, { file: "a" }],
  ["file=a,format=raw", undefined, { file: "a", format: "raw" }],
  ["file=a,,b", undefined, { file: "a,b" }],
  ["file=a,,,,b,x=1", undefined, { file: "a,,b", x: "1" }],
  ["file=a,,,x=1", undefined, { file: "a,", x: "1" }],
  ["file=,,", undefined, { file: "," }],
  ["file=", undefined, { file: "" }],
  ["file=a=b", undefined, { file: "a=b" }],
  ["file=a,file=b", undefined, { file: "b" }],
  ["readonly", undefined, { readonly: "on" }],
  ["noreadonly", undefined, { readonly: "off" }],
  ["server,nowait", undefined, { server: "on", wait: "off" }],
  ["vm1", "guest", { guest: "vm1" }],
  ["vm1,process=x", "guest", { guest: "vm1", process: "x" }],
  ["guest=vm1,debug-threads=on", "guest", { guest: "vm1", "debug-threads": "on" }],
  ["a,,b", "guest", { guest: "a,b" }],
  ["process=x,vm1", "guest", { process: "x", vm1: "on" }],
  ["", "guest", {}],
  ["/run/a,,b.sock,server=on,wait=off", "path", { path: "/run/a,b.sock", server: "on", wait: "off" }],
];

Deno.test("options with parameters are read as QEMU reads them", () => {
  for (const [text, implied, meaning] of OPTIONS) {
    assert.deepEqual(Object.fromEntries(parseParameters(text, implied).entries()), meaning, text);
  }
});

Deno.test("the first id counts, of other parameters the last", () => {
  const parameters = parseParameters("id=a,file=x,id=b,file=y");
  assert.equal(parameters.first("id"), "a");
  assert.equal(parameters.get("file"), "y");
});

const NAME = fc.string({ minLength: 1, maxLength: 8, unit: fc.constantFrom(..."abcdefgh.-0123456789") });
const VALUE = fc.string({ maxLength: 30, unit: fc.constantFrom(..."ab,=/ .:\"'\\ü\n") });

Deno.test("whatever is in a value comes back from an option, with its commas doubled", () => {
  fc.assert(fc.property(fc.array(fc.tuple(NAME, VALUE), { minLength: 1, maxLength: 6 }), (pairs) => {
    const text = pairs.map(([name, value]) => `${name}=${formatValue(value)}`).join(",");
    assert.deepEqual([...parseParameters(text).entries()], [...new Map(pairs)]);
    const keyValues = parseKeyValues(text, "driver");
    assert.ok(typeof keyValues !== "string");
    assert.deepEqual([...keyValues.entries()], [...new Map(pairs)]);
  }));
});

Deno.test("an implied first value comes back with its commas, whatever follows", () => {
  // One with "=" would be a name: QEMU has it so, and wants the name written out then.
  const plain = VALUE.filter((value) => value !== "" && !/^[^,]*=/.test(value) && !value.startsWith(","));
  fc.assert(fc.property(plain, VALUE, (first, other) => {
    const parameters = parseParameters(`${formatValue(first)},x=${formatValue(other)}`, "path");
    assert.deepEqual([...parameters.entries()], [["path", first], ["x", other]]);
  }));
});

Deno.test("any text at all is read to its end", () => {
  fc.assert(fc.property(fc.string({ unit: "binary" }), (text) => {
    parseParameters(text);
    parseParameters(text, "driver");
    parseKeyValues(text, "driver");
    readJsonOptions(text);
    parseConfigFile(text);
  }));
});

Deno.test("a -blockdev without = after its first word is an error, as in QEMU", () => {
  assert.equal(parseKeyValues("raw,readonly,file=x", "driver"), '"readonly" has no value');
});

const JSON_OPTIONS: [string, Record<string, string | null> | string][] = [
  ['{"driver":"raw","file":{"driver":"file","filename":"a,b"}}', {
    driver: "raw",
    "file.driver": "file",
    "file.filename": "a,b",
  }],
  ['{"children":["a",{"driver":"x"}]}', { "children.0": "a", "children.1.driver": "x" }],
  ['{"backing":null,"read-only":true,"auto-read-only":false,"offset":512}', {
    backing: null,
    "read-only": "on",
    "auto-read-only": "off",
    offset: "512",
  }],
  [`{'driver':'raw','file':"x'y"}`, { driver: "raw", file: "x'y" }],
  [`{'a':'say "so"','b':'it\\'s'}`, { a: 'say "so"', b: "it's" }],
  ["{", "it is not JSON"],
  ["[1]", "it is not a JSON object"],
  ["null", "it is not a JSON object"],
];

Deno.test("JSON is flattened as QEMU does, single quotes included", () => {
  for (const [text, meaning] of JSON_OPTIONS) {
    const options = readJsonOptions(text);
    assert.deepEqual(typeof options === "string" ? options : Object.fromEntries(options), meaning, text);
  }
});

Deno.test("switches are what QEMU takes for them", () => {
  for (const text of ["on", "yes", "true", "y"]) assert.equal(switchOf(text), true);
  for (const text of ["off", "no", "false", "n"]) assert.equal(switchOf(text), false);
  for (const text of ["", "1", "ON", "0", "auto"]) assert.equal(switchOf(text), undefined);
});

Deno.test("a command line is taken apart by which options take a value", () => {
  const words = splitCommandLine(["-S", "--drive", "file=a", "b.img", "-append", "-hda", "-hda", "--x"]);
  assert.deepEqual(words, [
    { kind: "option", name: "S", value: "" },
    { kind: "option", name: "drive", value: "file=a" },
    { kind: "image", file: "b.img" },
    { kind: "option", name: "append", value: "-hda" },
    { kind: "option", name: "hda", value: "--x" },
  ]);
});

Deno.test("an option that is not known, or has no value, is refused with what to do", () => {
  for (
    const args of [["-frobnicate"], ["-frobnicate", "a.img"], ["-hda"], ["-"], ["--"], ["---S"], [
      "-S alt-grab",
    ]]
  ) {
    assert.throws(() => splitCommandLine(args), (error) => {
      assert.ok(error instanceof LockvisorError);
      assert.equal(error.code, "usage");
      assert.match(error.message, /--disk and add --no-auto$/);
      return true;
    });
  }
});

const LONG_NAMES = [
  "async-teardown",
  "audio-help",
  "xen-attach",
  "xen-domid-restrict",
  "enable-sync-profile",
];
const INDENTED_VALUES = ["dtb"];

Deno.test("every option in the help of the QEMU that is installed is known, with whether it takes a value", async () => {
  const { stdout } = await new Deno.Command("qemu-system-x86_64", { args: ["-help"], stdin: "null" })
    .output();
  const lines = new TextDecoder().decode(stdout).split("\n").filter((line) => /^-/.test(line));
  assert.ok(lines.length > 100);
  for (const line of lines) {
    for (const spelling of line.split(/ or (?=-)/)) {
      const [, names, rest] = /^--?([\w/-]+)(.*)/.exec(spelling.trim())!;
      for (const name of names!.split("/-")) {
        assert.notEqual(takesValue(name), undefined, `-${name}`);
        // A description stands in a column of its own, unless the name is too long for that.
        if (/^ [^ ]/.test(rest!) && !LONG_NAMES.includes(name)) {
          assert.equal(takesValue(name), true, `-${name}`);
        }
        if (/^ {2,}|^$/.test(rest!)) {
          assert.equal(takesValue(name), INDENTED_VALUES.includes(name), `-${name}`);
        }
      }
    }
  }
});

const CONFIG = `# comment
[drive "d0"]
  if = "none"
  file = "a b,c.img"

[name]
  guest = "vm1"
[device "x"]
driver = "virtio-blk-pci"
`;

Deno.test("a configuration file is read, and what is not understood is told by its line", () => {
  assert.deepEqual(parseConfigFile(CONFIG), [
    { group: "drive", id: "d0", parameters: [["if", "none"], ["file", "a b,c.img"]] },
    { group: "name", id: undefined, parameters: [["guest", "vm1"]] },
    { group: "device", id: "x", parameters: [["driver", "virtio-blk-pci"]] },
  ]);
  assert.equal(parseConfigFile('[drive "d"]\n  file = a.img\n'), "line 2 is not understood");
  assert.equal(parseConfigFile('file = "a.img"\n'), "line 1 is not understood");
});

const COMMANDS: [string, { args: string[]; directory?: string } | undefined][] = [
  ["qemu-system-x86_64 -S", { args: ["-S"] }],
  ["/usr/bin/qemu-system-aarch64 -S", { args: ["-S"] }],
  ["/usr/libexec/qemu-kvm", { args: [] }],
  ["kvm -m 1", { args: ["-m", "1"] }],
  ["env qemu-system-i386", { args: [] }],
  ["env -i A=b -u C qemu-system-i386 -S", { args: ["-S"] }],
  ["env -C /x qemu-system-i386", { args: [], directory: "/x" }],
  ["env --chdir=/x qemu-system-i386", { args: [], directory: "/x" }],
  ["env -C/x qemu-system-i386", { args: [], directory: "/x" }],
  ["nice -n 5 qemu-kvm -S", { args: ["-S"] }],
  ["nice -5 nice qemu-kvm", { args: [] }],
  ["ionice -c 3 qemu-kvm", { args: [] }],
  ["chrt -f 10 qemu-kvm", { args: [] }],
  ["taskset -c 0-3,7 qemu-kvm", { args: [] }],
  ["taskset 0xff qemu-kvm", { args: [] }],
  ["numactl --membind 0 -C 1 -- qemu-kvm -S", { args: ["-S"] }],
  ["numactl -m0 --cpunodebind=0 qemu-kvm", { args: [] }],
  ["setpriv --reuid kvm --regid kvm --init-groups qemu-kvm -S", { args: ["-S"] }],
  ["setpriv --reuid=kvm --regid=kvm --init-groups env kvm -S", { args: ["-S"] }],
  ["/usr/bin/setsid /usr/bin/nohup qemu-kvm", { args: [] }],
  ["sh -c qemu-system-x86_64", undefined],
  ["true", undefined],
  ["qemu-img info x", undefined],
  ["qemu-x86_64 ./program", undefined],
  ["", undefined],
  ["env", undefined],
  ["setpriv --reuid kvm", undefined],
];

Deno.test("QEMU is found by its name, behind launchers too", () => {
  for (const [text, expected] of COMMANDS) {
    const found = findQemu(text === "" ? [] : text.split(" "), () => "/usr/bin:/bin");
    const { args, directory } = found ?? {};
    assert.deepEqual(
      found === undefined ? undefined : { args, ...directory === undefined ? {} : { directory } },
      expected,
      text,
    );
  }
});

Deno.test("QEMU is found behind links, by path and in PATH", async () => {
  const directory = await Deno.makeTempDir();
  try {
    await Deno.symlink("/usr/bin/qemu-system-x86_64", `${directory}/my-vm`);
    assert.deepEqual(findQemu([`${directory}/my-vm`, "-S"], () => "")?.args, ["-S"]);
    assert.deepEqual(findQemu(["my-vm", "-S"], () => `/nowhere:${directory}`)?.args, ["-S"]);
    assert.equal(findQemu(["my-vm", "-S"], () => "/nowhere"), undefined);
    const unreadable = () => {
      throw new LockvisorError("config", "not valid UTF-8");
    };
    assert.equal(findQemu(["my-vm"], unreadable), undefined);
    assert.deepEqual(findQemu(["qemu-kvm"], unreadable)?.args, []);
    assert.equal(findQemu([`${directory}/none`], () => ""), undefined);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});
