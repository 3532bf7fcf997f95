import assert from "node:assert/strict";
import fc from "fast-check";
import { LockvisorError } from "../lib/errors.ts";
import { isNetworkDisk, networkIdentity, readNetworkDisk } from "../lib/identity/network_disk.ts";
import { resolveResource } from "../lib/identity/resource.ts";
import { normalHost, normalPath, percentDecode, percentEncode } from "../lib/identity/uri.ts";

const HOST = "hv1";
const identityOf = (text: string) => networkIdentity(readNetworkDisk(text), HOST);

/** Spellings of the same disk, and the identity that all of them have. */
const SAME: Record<string, string[]> = {
  "uri:rbd:pool/image": [
    "rbd:pool/image",
    "rbd:pool/image:id=admin:key=AQ==",
    "RBD:pool/image:conf=/e",
    "rbd:pool//image",
  ],
  "uri:rbd:pool/image@s1": ["rbd:pool/image@s1", "rbd:pool/image@s1:id=x"],
  "uri:rbd:pool/ns/image": ["rbd:pool/ns/image"],
  "uri:rbd:po\\:ol/im\\@age\\/x": ["rbd:po\\:ol/im\\@age\\/x", "rbd:po\\:ol/im\\@age\\/x:mon_host=a\\:6789"],
  "uri:rbd:pool/my image": ["rbd:pool/my image"],
  "uri:nbd://h/x": [
    "nbd://h/x",
    "nbd://H:10809/x",
    "nbd+tcp://h./x",
    "nbd:h:10809:exportname=x",
    "nbd://user:secret@h//x",
    "nbd://h/%78",
    "nbd://h/x?tls-hostname=y",
  ],
  "uri:nbd://h:10810/": ["nbd:h:10810", "nbd://h:10810", "nbd://h:10810/"],
  "uri:nbd://h/a%20b/c": ["nbd://h/a%20b/c", "nbd:h:10809:exportname=a b/c", "nbd://h/a%20b%2Fc"],
  "uri:nbd://[2001:db8::1]/x": ["nbd://[2001:DB8:0::1]/x", "nbd:[2001:db8::1]:10809:exportname=x"],
  "uri:nbd://[fe80::1%25eth0]/x": ["nbd://[FE80::1%25eth0]/x", "nbd://[fe80:0::1%eth0]/x"],
  "uri:hv1:nbd://localhost/x": [
    "nbd://localhost/x",
    "nbd://127.0.0.1/x",
    "nbd://[::1]/x",
    "nbd://127.1:10809/x",
  ],
  "uri:hv1:nbd+unix:///x?socket=/run/s": [
    "nbd+unix:///x?socket=/run/s",
    "nbd+unix:///x?socket=%2Frun%2fs",
    "nbd:unix:/run/s:exportname=x",
    "nbd:unix:/run//s:exportname=x",
  ],
  "uri:hv1:nbd+unix:///?socket=/run/a%25b": ["nbd:unix:/run/a%b", "nbd+unix://?socket=/run/a%25b"],
  "uri:iscsi://iqn.2001-04.com.example:d1/1": [
    "iscsi://portal/iqn.2001-04.com.example:d1/1",
    "iscsi://user%secret@10.0.0.1:3261/IQN.2001-04.com.Example:d1/01",
    "iser://portal/iqn.2001-04.com.example%3Ad1/1",
  ],
  "uri:nfs://srv/export/disk": [
    "nfs://srv/export/disk",
    "nfs://SRV:2049//export/./x/../disk?uid=0&version=4",
    "nfs://srv/export/%64isk/",
  ],
  "uri:gluster://vol/dir/disk": [
    "gluster://s1/vol/dir/disk",
    "gluster+tcp://s2:24007/vol//dir/disk",
    "gluster+rdma://s3:1/vol/dir/disk",
    "gluster:///vol/dir/disk",
    "gluster+unix:///vol/dir/disk?socket=/run/glusterd.socket",
  ],
  "uri:sheepdog:vdi": ["sheepdog:vdi", "sheepdog:h:7000:vdi", "sheepdog:///vdi", "sheepdog+tcp://h/vdi"],
  "uri:sheepdog:vdi#tag": ["sheepdog:vdi#tag", "sheepdog://h/vdi#tag"],
  "uri:ssh://srv/a/b": ["ssh://srv/a/b", "ssh://me@srv:22/a/b?host_key_check=no", "sftp://srv//a/b"],
  "uri:ssh://srv:2222/a": ["ssh://srv:2222/a"],
  "uri:http://h/a": ["http://h/a", "HTTP://u:p@H:80/a#f", "http://h/./a"],
  "uri:http://h/": ["http://h", "http://h/"],
  "uri:http://h/a%2Fb%C3%A4": ["http://h/a%2fb%c3%a4", "http://h/a%2Fbä"],
  "uri:https://h/a": ["https://h:443/a"],
  "uri:ftp://h:2121/a": ["ftp://h:2121/a"],
  "uri:ftps://h/a": ["ftps://h:990/a"],
};

Deno.test("network disk: every spelling of a disk has the same identity, different disks have different ones", () => {
  for (const [expected, spellings] of Object.entries(SAME)) {
    for (const text of spellings) {
      assert.equal(isNetworkDisk(text), true, text);
      assert.equal(identityOf(text), expected, text);
    }
  }
});

Deno.test("network disk: the shown URI means the disk that was given, and stays as it is", () => {
  for (const text of Object.values(SAME).flat()) {
    const { uri } = readNetworkDisk(text);
    assert.equal(identityOf(uri), identityOf(text), text);
    assert.equal(readNetworkDisk(uri).uri, uri, text);
  }
});

Deno.test("network disk: only what means something else on every host carries the host's id", () => {
  for (const text of Object.values(SAME).flat()) {
    const disk = readNetworkDisk(text);
    const differs = networkIdentity(disk, "a") !== networkIdentity(disk, "b");
    assert.equal(differs, disk.hostLocal, text);
    assert.equal(
      disk.hostLocal,
      /localhost|127\.|::1\]|unix/.test(text) && /^(nbd)/.test(text) && !/db8|fe80/i.test(text),
      text,
    );
  }
  // Each node of a cluster asks its own daemon for the same volume.
  assert.equal(readNetworkDisk("gluster://localhost/vol/disk").hostLocal, false);
  assert.equal(readNetworkDisk("nfs://localhost/export/disk").hostLocal, false);
});

Deno.test("network disk: the query of a web disk counts, but is not shown", () => {
  const one = readNetworkDisk("https://h/a?token=secret");
  assert.match(one.uri, /^https:\/\/h\/a\?sha256=[0-9a-f]{32}$/);
  assert.notEqual(one.identity, readNetworkDisk("https://h/a?token=other").identity);
  assert.notEqual(one.identity, readNetworkDisk("https://h/a").identity);
});

Deno.test("network disk: malformed names are refused, and no message or URI shows a secret", () => {
  const bad = [
    "rbd:",
    "rbd:image",
    "rbd:/image",
    "rbd:pool/",
    "rbd:pool/image@",
    "rbd:pool/a/b/c",
    "rbd:pool/image@a@b",
    "rbd://pool/image",
    "nbd:",
    "nbd:h",
    "nbd:h:x",
    "nbd:h:0",
    "nbd:h:65536",
    "nbd::10809",
    "nbd:2001:db8::1:10809",
    "nbd:unix:relative",
    "nbd:unix:",
    "nbd:///x",
    "nbd://[::1/x",
    "nbd://h:port/x",
    "nbd://h/%zz",
    "nbd+unix:///x",
    "nbd+unix:///x?socket=",
    "nbd+unix:///x?socket=relative",
    "nbd+tcp:h:1",
    "iscsi://h/",
    "iscsi://h/iqn.x",
    "iscsi://h/iqn.x/lun",
    "iscsi://h/iqn.x/1/2",
    "iscsi:h",
    "nfs://srv",
    "nfs://srv/",
    "nfs:///export/x",
    "nfs:srv:/export",
    "gluster://h/vol",
    "gluster+unix:///vol/x",
    "sheepdog:",
    "sheepdog://h/",
    "ssh://h",
    "ssh:///x",
    "ssh://user:secret/word@h/x",
    "http:///x",
    "http://h h/x",
    "http://h/a b",
    "http://user:secret@/x",
    "http://user:secret@[bad]/x",
    "http://user:secret@h:99999/x",
    "http://user:secret@a\\b/x",
    "http://h/\nx",
  ];
  for (const text of bad) {
    assert.throws(() => readNetworkDisk(text), (error) => {
      assert.ok(error instanceof LockvisorError, `${text}: ${error}`);
      assert.equal(error.code, "data", text);
      assert.ok(!error.message.includes("secret"), error.message);
      return error.message.startsWith(text.slice(0, text.indexOf(":") + 1));
    }, text);
  }
  for (const text of Object.values(SAME).flat()) {
    assert.ok(!/secret|AQ==/.test(readNetworkDisk(text).uri + identityOf(text)), text);
  }
});

Deno.test("network disk: paths and other schemes are none", () => {
  for (
    const text of [
      "/a",
      "./rbd:x/y",
      "a/nbd:b",
      "file:/a",
      "host_device:/dev/sda",
      "s3://b/x",
      "rbdx:a",
      "",
      ":",
    ]
  ) {
    assert.equal(isNetworkDisk(text), false, text);
  }
});

Deno.test("network disk: as a resource", () => {
  const spec = { type: "disk" as const, name: "nbd://u:p@h:10809/x", access: "shared" as const };
  const resolved = resolveResource(spec, { hostId: HOST, storage: [] });
  assert.equal(resolved.name, "nbd://h/x");
  assert.deepEqual(resolved.identities.map(({ text }) => text), ["uri:nbd://h/x"]);
  assert.equal(resolved.onNetworkStorage, true);
  const local = resolveResource({ ...spec, name: "nbd:unix:/run/s" }, { hostId: HOST, storage: [] });
  assert.equal(local.onNetworkStorage, false);
});

Deno.test("URI parts: hosts, paths and percent signs in one form", () => {
  const hosts: [string, string | undefined][] = [
    ["Example.COM.", "example.com"],
    ["10.0.0.1", "10.0.0.1"],
    ["0xa.1", "10.0.0.1"],
    ["[::ffff:10.0.0.1]", "[::ffff:a00:1]"],
    ["0.0.0.0", "localhost"],
    ["[::]", "localhost"],
    ["LocalHost", "localhost"],
    ["a_b", "a_b"],
    ["", undefined],
    ["a b", undefined],
    ["a\\b", undefined],
    ["[x]", undefined],
  ];
  for (const [host, expected] of hosts) assert.equal(normalHost(host), expected, host);
  fc.assert(fc.property(fc.string({ unit: "binary" }), (text) => {
    assert.equal(percentDecode(percentEncode(text)), text.toWellFormed());
  }));
  fc.assert(
    fc.property(
      fc.string({ unit: fc.constantFrom("/", ".", "%2F", "%41", "%c3", "a", "ä", " ", "..") }),
      (path) => {
        const normal = normalPath(path);
        assert.equal(normalPath(normal), normal);
        assert.match(normal, /^\/(?!\/)/);
        assert.ok(!/(^|\/)\.\.?(\/|$)|\/\/|[^/]\/$/.test(normal), normal);
      },
    ),
  );
});
