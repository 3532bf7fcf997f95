import assert from "node:assert/strict";
import fc from "fast-check";
import { ACCESSES } from "../lib/access.ts";
import { type ErrorCode, LockvisorError } from "../lib/errors.ts";
import { absolutePath } from "../lib/identity/absolute_path.ts";
import { identity, keyOf, sortedIdentities } from "../lib/identity/key.ts";
import { leaseIdentity, resolveResource } from "../lib/identity/resource.ts";
import { formatResource, parseDisk, parseLease, parseResource } from "../lib/identity/specification.ts";
import {
  isUuid,
  LOCKVISOR_NAMESPACE,
  normaliseUuid,
  uuidOfName,
  uuidVersion5,
} from "../lib/identity/uuid.ts";

function refused(action: () => unknown): { code: ErrorCode; message: string } {
  try {
    action();
  } catch (error) {
    assert.ok(error instanceof LockvisorError, String(error));
    return error;
  }
  throw new assert.AssertionError({ message: `accepted: ${action}` });
}

Deno.test("key: the SHA-256 of the text in UTF-8", () => {
  assert.equal(keyOf("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  assert.equal(keyOf("ä"), "33e6d73fee82904c8d7afb78de1154d1e8dc2a0edb08120e63df5b9385c2d9cc");
  assert.deepEqual(identity("abc"), { text: "abc", key: keyOf("abc"), scope: "whole" });
});

Deno.test("identities: ascending, each key once, the stronger scope stays", () => {
  const texts = ["c", "a", "b", "a"];
  const sorted = sortedIdentities([
    ...texts.map((text) => identity(text, "containing")),
    identity("b"),
    identity("b", "containing"),
  ]);
  assert.deepEqual(sorted.map(({ key }) => key), [...new Set(texts.map(keyOf))].sort());
  assert.deepEqual(
    Object.fromEntries(sorted.map(({ text, scope }) => [text, scope])),
    { a: "containing", b: "whole", c: "containing" },
  );
});

Deno.test("uuid: version 5 as RFC 9562 has it, under lockvisor's own namespace", () => {
  const dns = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";
  assert.equal(uuidVersion5(dns, "www.example.com"), "2ed6657d-e927-568b-95e1-2665a8aea6a2");
  assert.equal(LOCKVISOR_NAMESPACE, uuidVersion5(dns, "lockvisor"));
  assert.equal(uuidOfName("vm1"), uuidVersion5(LOCKVISOR_NAMESPACE, "vm1"));
  fc.assert(fc.property(fc.string({ unit: "grapheme" }), (name) => {
    const uuid = uuidOfName(name);
    assert.match(uuid, /^[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    assert.equal(uuidOfName(name), uuid);
    assert.equal(normaliseUuid(uuid.toUpperCase()), uuid);
  }));
});

Deno.test("uuid: only the usual form is one, and never the nil UUID", () => {
  assert.equal(normaliseUuid("C64644E7-9202-57E4-B1E7-2DCB8B7D007E"), "c64644e7-9202-57e4-b1e7-2dcb8b7d007e");
  const bad = [
    "",
    "00000000-0000-0000-0000-000000000000",
    "c64644e7920257e4b1e72dcb8b7d007e",
    "{c64644e7-9202-57e4-b1e7-2dcb8b7d007e}",
    "c64644e7-9202-57e4-b1e7-2dcb8b7d007",
    "c64644e7-9202-57e4-b1e7-2dcb8b7d007ef",
    "g64644e7-9202-57e4-b1e7-2dcb8b7d007e",
    "c64644e7-9202-57e4-b1e7-2dcb8b7d007e\n",
    "../c64644e7-9202-57e4-b1e7-2dcb8b7d007e",
  ];
  for (const text of bad) {
    assert.equal(isUuid(text), false, text);
    assert.equal(refused(() => normaliseUuid(text)).code, "usage", text);
  }
});

Deno.test("disk: path, doubled commas and access", () => {
  const cases: [string, string, string][] = [
    ["/a", "/a", "exclusive"],
    ["/a,access=readonly", "/a", "readonly"],
    ["/a,access=shared", "/a", "shared"],
    ["/a,,b", "/a,b", "exclusive"],
    ["/a,,", "/a,", "exclusive"],
    ["/a,,,access=shared", "/a,", "shared"],
    ["/a,,,,b,access=shared", "/a,,b", "shared"],
    ["/a,,access=shared", "/a,access=shared", "exclusive"],
    [",,", ",", "exclusive"],
    ["a=b", "a=b", "exclusive"],
    [" /a", " /a", "exclusive"],
    ["nbd://h/x,access=exclusive", "nbd://h/x", "exclusive"],
  ];
  for (const [text, name, access] of cases) {
    assert.deepEqual(parseDisk(text), { type: "disk", name, access }, text);
  }
});

Deno.test("disk: what is not PATH[,access=…] is a usage error", () => {
  const cases: [string, RegExp][] = [
    ["", /no path/],
    [",access=shared", /no path/],
    ["/a,", /unknown option ""/],
    ["/a,b", /unknown option "b".*a comma in the path is doubled/],
    ["/a,readonly=on", /unknown option "readonly"/],
    ["/a,access", /unknown option "access"/],
    ["/a,access=", /access "" is unknown; it is one of exclusive, shared, readonly/],
    ["/a,access=write", /access "write" is unknown/],
    ["/a,access=Exclusive", /access "Exclusive" is unknown/],
    ["/a,access=shared,access=shared", /access is given twice/],
    ["/a,access=shared,,", /access "shared," is unknown/],
    ["/a,access=shared\n", /access "shared\\n" is unknown/],
  ];
  for (const [text, message] of cases) {
    const error = refused(() => parseDisk(text));
    assert.equal(error.code, "usage", text);
    assert.match(error.message, message, text);
  }
});

Deno.test("disk and lease: what is written is read back", () => {
  const access = fc.constantFrom(...ACCESSES);
  const name = fc.string({
    minLength: 1,
    unit: fc.constantFrom(",", "=", "a", "/", ":", "access", "ü", " "),
  });
  fc.assert(fc.property(name, access, (name, access) => {
    const spec = { type: "disk" as const, name, access };
    assert.deepEqual(parseDisk(formatResource(spec)), spec);
  }));
  fc.assert(fc.property(name, access, (key, access) => {
    const spec = { type: "lease" as const, name: `space:${key}`, access };
    assert.deepEqual(parseLease(formatResource(spec)), spec);
  }));
});

Deno.test("lease: LOCKSPACE:KEY, split at the first colon", () => {
  const cases: [string, string, string][] = [
    ["db:vol1", "db:vol1", "exclusive"],
    ["db:a:b", "db:a:b", "exclusive"],
    ["db:a,,b,access=shared", "db:a,b", "shared"],
    ["d.b_-1:ü/x y", "d.b_-1:ü/x y", "exclusive"],
    [`db:${"😀".repeat(255)}`, `db:${"😀".repeat(255)}`, "exclusive"],
  ];
  for (const [text, name, access] of cases) {
    assert.deepEqual(parseLease(text), { type: "lease", name, access });
  }
  const bad: [string, RegExp][] = [
    ["", /no colon/],
    ["db", /no colon/],
    [":x", /lockspace "" must be/],
    ["d/b:x", /lockspace "d\/b"/],
    [`${"a".repeat(65)}:x`, /must be 1 to 64/],
    ["db:", /no key/],
    ["db:,access=shared", /no key/],
    [`db:${"k".repeat(256)}`, /256 characters; at most 255/],
    ["db:a\nb", /control characters/],
    ["db:a\u202eb", /control characters/],
    ["db:x,owner=1", /unknown option "owner".*a comma in the key is doubled/],
  ];
  for (const [text, message] of bad) {
    const error = refused(() => parseLease(text));
    assert.equal(error.code, "usage", text);
    assert.match(error.message, message);
  }
});

Deno.test("disk or lease: a path, a network disk and an existing file are disks", () => {
  const existing = new Set(["a:b", "a,b:c"]);
  const cases: [string, "disk" | "lease"][] = [
    ["/a:b", "disk"],
    ["./a:b", "disk"],
    ["../a:b", "disk"],
    ["d/a:b", "disk"],
    ["image.qcow2", "disk"],
    ["a:b", "disk"],
    ["a,,b:c", "disk"],
    ["b:c", "lease"],
    ["b:c/d", "lease"],
    ["b:c,access=shared", "lease"],
    ["guest:c64644e7-9202-57e4-b1e7-2dcb8b7d007e", "lease"],
    ["nbd:host:1", "disk"],
    ["rbd:pool/image", "disk"],
    ["NBD://host/x", "disk"],
    ["s3://bucket/x", "disk"],
    ["file:x", "disk"],
    ["host_device:sda", "disk"],
    ["a b:c", "disk"],
  ];
  for (const [text, type] of cases) {
    assert.equal(parseResource(text, (path) => existing.has(path)).type, type, text);
  }
});

Deno.test("absolute path: `.` and empty components go, `..` and a trailing slash stay", () => {
  const cases: [string, string][] = [
    ["/a", "/a"],
    ["a", "/here/a"],
    ["./a", "/here/a"],
    ["../a", "/here/../a"],
    ["//a//./b", "/a/b"],
    ["/a/", "/a/"],
    ["/a/.", "/a/"],
    ["/", "/"],
    ["..", "/here/.."],
  ];
  for (const [path, expected] of cases) assert.equal(absolutePath(path, "/here"), expected, path);
  assert.equal(absolutePath("x"), `${Deno.cwd() === "/" ? "" : Deno.cwd()}/x`);
});

Deno.test("lease: one identity, whatever the host", () => {
  const spec = parseLease("db:vol1,access=shared");
  const resolved = resolveResource(spec, { hostId: "h", storage: [] });
  assert.deepEqual(resolved, {
    ...spec,
    identities: [identity("lease:db:vol1")],
    onNetworkStorage: false,
  });
  assert.equal(leaseIdentity("db", "vol1"), "lease:db:vol1");
});
