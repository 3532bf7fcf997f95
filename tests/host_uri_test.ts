import assert from "node:assert/strict";
import fc from "fast-check";
import { parseHostUri } from "../lib/config/host_uri.ts";
import { LockvisorError } from "../lib/errors.ts";

const ssh = (parts: Partial<{ user: string; host: string; port: number; settings: object }>) => ({
  kind: "ssh",
  user: undefined,
  port: undefined,
  settings: {},
  ...parts,
});

const GOOD: [string, unknown][] = [
  ["local:", { kind: "local", settings: {} }],
  ["LOCAL:", { kind: "local", settings: {} }],
  ["local:?", { kind: "local", settings: {} }],
  ["local:?host-id=h2&runtime-dir=/run/b", {
    kind: "local",
    settings: { hostId: "h2", runtimeDir: "/run/b" },
  }],
  ["local:?program=/opt/a%20b/lockvisor", { kind: "local", settings: { program: "/opt/a b/lockvisor" } }],
  ["local:?lockspace=/l%26%3D%25", { kind: "local", settings: { lockspace: "/l&=%" } }],
  ["local:?config=/a=b+c", { kind: "local", settings: { config: "/a=b+c" } }],
  ["ssh://hv2", ssh({ host: "hv2" })],
  ["ssh://hv2/", ssh({ host: "hv2" })],
  ["ssh://root@hv2.example:2222", ssh({ user: "root", host: "hv2.example", port: 2222 })],
  ["ssh://a%40b@hv2", ssh({ user: "a@b", host: "hv2" })],
  ["ssh://[fe80::1%eth0]:22", ssh({ host: "fe80::1%eth0", port: 22 })],
  ["ssh://[::1]?program=lockvisor-2", ssh({ host: "::1", settings: { program: "lockvisor-2" } })],
];

for (const [text, wanted] of GOOD) {
  Deno.test(`a destination is read: ${text}`, () => assert.deepEqual(parseHostUri(text), wanted));
}

const BAD: [string, RegExp][] = [
  ["", /must be local: or ssh:/],
  ["hv2", /must be local: or ssh:/],
  ["http://hv2", /must be local: or ssh:/],
  ["local:/x", /nothing but/],
  ["local://", /nothing but/],
  ["ssh:hv2", /wanted \/\//],
  ["ssh://", /names no host/],
  ["ssh://-oProxyCommand=x", /names no host/],
  ["ssh://[-x]", /names no host/],
  ["ssh://a b", /names no host/],
  ["ssh://hv2#x", /names no host|path has no meaning/],
  ["ssh://hv2/etc", /path has no meaning/],
  ["ssh://-x@hv2", /user's name/],
  ["ssh://@hv2", /user's name/],
  ["ssh://root:secret@hv2", /password/],
  ["ssh://hv2:0", /port/],
  ["ssh://hv2:99999", /port/],
  ["local:?colour=red", /no parameter "colour"/],
  ["local:?toString=x", /no parameter "toString"/],
  ["local:?host-id=a&host-id=b", /given twice/],
  ["local:?host-id", /host-id must be/],
  ["local:?host-id=a%20b", /host-id must be/],
  ["local:?runtime-dir=run", /absolute path/],
  ["local:?config=/a%00", /absolute path/],
  ["local:?program=./x", /absolute path, or a name/],
  ["local:?program=-x", /absolute path, or a name/],
  ["local:?config=%", /two hexadecimal/],
  ["local:?config=%ff", /UTF-8/],
];

for (const [text, wanted] of BAD) {
  Deno.test(`a destination is refused: "${text}"`, () => {
    assert.throws(() => parseHostUri(text), (error) => {
      assert.ok(error instanceof LockvisorError);
      assert.equal(error.code, "usage");
      assert.match(error.message, wanted);
      return true;
    });
  });
}

Deno.test("whatever is written as a destination, ssh gets neither an option nor an empty word", () => {
  const piece = fc.constantFrom(
    "ssh://",
    "local:",
    "@",
    ":",
    "-",
    "[",
    "]",
    "?",
    "%2d",
    "%00",
    "a",
    "/",
    "#",
    "1",
    " ",
  );
  fc.assert(fc.property(fc.array(piece).map((pieces) => `ssh://${pieces.join("")}`), (text) => {
    let uri;
    try {
      uri = parseHostUri(text);
    } catch (error) {
      assert.ok(error instanceof LockvisorError && error.code === "usage", String(error));
      return;
    }
    assert.equal(uri.kind, "ssh");
    if (uri.kind !== "ssh") return;
    for (const word of [uri.host, uri.user ?? "root"]) assert.match(word, /^[A-Za-z0-9_:]/);
  }));
});
