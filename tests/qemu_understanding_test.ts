import assert from "node:assert/strict";
import { LockvisorError } from "../lib/errors.ts";
import type { NamedFiles, StatedImage } from "../lib/image/image_reader.ts";
import { understandQemu, type UnderstoodQemu } from "../lib/qemu/understand.ts";

/** Images by path, each with what its header names. */
type Images = Record<string, Partial<NamedFiles>>;

interface Told {
  understood: UnderstoodQemu;
  warnings: string[];
  read: StatedImage[];
}

/** Understands a command line in the directory /vm, on images that are not really there. */
async function tell(args: string[], images: Images = {}, config: Record<string, string> = {}): Promise<Told> {
  const warnings: string[] = [];
  const read: StatedImage[] = [];
  const understood = await understandQemu(args, {
    directory: "/vm",
    images: {
      read: (image) => {
        read.push(image);
        const { identity = image.path, backing, data = [] } = images[image.path] ?? {};
        return Promise.resolve({ identity, backing, data });
      },
      warn: (line) => warnings.push(line),
    },
    config: {
      read: (path) => config[path] ?? assert.fail(`no ${path}`),
      readDefault: () => config.default,
    },
  });
  return { understood, warnings, read };
}

/** The disks in one line each. */
async function disksOf(args: string, images: Images = {}): Promise<string[]> {
  const { understood } = await tell(args.split(" "), images);
  return understood.disks.map(({ name, access }) => `${name} ${access}`);
}

const NETWORK: [string, string[]][] = [
  ["-drive file=rbd:pool/image:conf=/x,format=raw", ["rbd:pool/image:conf=/x exclusive"]],
  ["-drive file=nbd://host/disk,format=raw,readonly=on", ["nbd://host/disk readonly"]],
  ["-drive file=nbd:unix:/s:exportname=x", ["nbd:unix:/s:exportname=x exclusive"]],
  ["-drive file=nbd:unix:s:exportname=x", ["nbd:unix:/vm/s:exportname=x exclusive"]],
  ["-drive file=nbd+unix:///x?socket=/s", ["nbd+unix:///x?socket=/s exclusive"]],
  ["-cdrom https://host/x.iso", ["https://host/x.iso readonly"]],
  ["-drive file=http://host/x.iso", ["http://host/x.iso readonly"]],
  ["-drive driver=https,url=https://host/x.iso", ["https://host/x.iso readonly"]],
  ["-drive file=iscsi://portal/iqn.2001:t/1", ["iscsi://portal/iqn.2001:t/1 exclusive"]],
  ["-blockdev iscsi,node-name=i,transport=tcp,portal=p:3260,target=iqn.1:t,lun=2", [
    "iscsi://p:3260/iqn.1:t/2 exclusive",
  ]],
  ["-blockdev rbd,node-name=i,pool=p,image=i,server.0.host=h,server.0.port=1", ["rbd:p/i exclusive"]],
  ["-blockdev rbd,node-name=i,pool=p,namespace=n,image=a:b,snapshot=s", [
    String.raw`rbd:p/n/a\:b@s exclusive`,
  ]],
  ["-blockdev nfs,node-name=i,server.type=inet,server.host=h,path=/a/b%", ["nfs://h/a/b%25 exclusive"]],
  ["-blockdev ssh,node-name=i,server.host=h,server.port=22,path=/a", ["ssh://h:22/a exclusive"]],
  ["-blockdev nbd,node-name=i,server.type=inet,server.host=::1,server.port=10809,export=e", [
    "nbd://[::1]:10809/e exclusive",
  ]],
  ["-blockdev nbd,node-name=i,server.type=unix,server.path=n.sock,export=e", [
    "nbd+unix:///e?socket=/vm/n.sock exclusive",
  ]],
  ["-drive driver=nbd,host=h,port=1,if=none", ["nbd://h:1/ exclusive"]],
  ["-blockdev gluster,node-name=i,volume=v,path=a/b,server.0.type=inet,server.0.host=h,server.0.port=24007", [
    "gluster://h:24007/v/a/b exclusive",
  ]],
  ["-blockdev gluster,node-name=i,volume=v,path=a,server.0.type=unix,server.0.path=/s", [
    "gluster+unix:///v/a?socket=/s exclusive",
  ]],
];

Deno.test("disks on a network have the names that --disk takes", async () => {
  for (const [args, disks] of NETWORK) assert.deepEqual(await disksOf(args), disks, args);
});

const PATHS: [string, string[]][] = [
  ["-sd card.img", ["/vm/card.img exclusive"]],
  ["-mtdblock flash.img", ["/vm/flash.img exclusive"]],
  ["-kernel k -initrd i -dtb d -bios b -option-rom r -append x -mem-path /dev/shm", []],
  ["-drive file=/abs/../x,format=raw", ["/abs/../x exclusive"]],
  ["-cdrom /dev/cdrom", ["/dev/cdrom readonly"]],
  ["-drive file=host_device:/dev/sdb,format=raw", ["/dev/sdb exclusive"]],
  ["-drive file=nvme://0000:44:00.0/1,if=none", []],
  ["-blockdev nvme,node-name=n,device=0000:44:00.0,namespace=1", []],
  ["-device vfio-pci,host=0000:44:00.0", []],
  ["-fsdev local,id=f,path=/srv,security_model=none -device virtio-9p-pci,fsdev=f,mount_tag=t", []],
  ["-drive file=blkverify:a.raw:b.qcow2", ["/vm/a.raw exclusive", "/vm/b.qcow2 exclusive"]],
  ["-drive file=blkdebug:rules.conf:a.raw,format=raw", ["/vm/a.raw exclusive"]],
  ["-drive driver=blkreplay,if=none,image.driver=raw,image.file.filename=a.raw", ["/vm/a.raw exclusive"]],
  ["-drive file=a.raw,if=none,throttling.iops-total=1", ["/vm/a.raw exclusive"]],
  ["-drive if=none,throttling.iops-total=1,id=x", []],
  ["-blockdev blklogwrites,node-name=l,file.driver=file,file.filename=a,log.driver=file,log.filename=b", [
    "/vm/a exclusive",
    "/vm/b exclusive",
  ]],
  ["-object memory-backend-file,id=m,mem-path=pm.img,share=on,size=1 -device virtio-pmem-pci,memdev=m", [
    "/vm/pm.img exclusive",
  ]],
];

Deno.test("paths are meant from QEMU's directory, and what is no disk is none", async () => {
  for (const [args, disks] of PATHS) assert.deepEqual(await disksOf(args), disks, args);
});

const ACCESSES: [string, string[]][] = [
  ["-drive file=a,format=raw,snapshot=on", ["/vm/a readonly"]],
  ["-snapshot -drive file=a,format=raw -drive file=b,format=raw,snapshot=off", [
    "/vm/a readonly",
    "/vm/b exclusive",
  ]],
  ["-drive file=a,format=raw,if=none,id=d -device x,drive=d,share-rw=on", ["/vm/a shared"]],
  ["-drive file=a,if=none,id=d -device x,drive=d,share-rw=on", ["/vm/a shared"]],
  ["-drive file=a,format=raw,if=none,id=d,readonly=on -device x,drive=d,share-rw=on", ["/vm/a readonly"]],
  ["-drive file=a,format=raw,if=none,id=d -device x,drive=d,share-rw=on -device x,drive=d", [
    "/vm/a exclusive",
  ]],
  // Formats keep what only one QEMU can change.
  ["-drive file=a,format=qcow2,if=none,id=d -device x,drive=d,share-rw=on", ["/vm/a exclusive"]],
  ["-drive file=a,format=luks,if=none,id=d -device x,drive=d,share-rw=on", ["/vm/a exclusive"]],
  ["-drive file=json:{'read-only':true,,'driver':'raw',,'file.filename':'a'}", ["/vm/a exclusive"]],
  ["-blockdev file,filename=a,node-name=f,auto-read-only=on -blockdev raw,file=f,node-name=r,read-only=on", [
    "/vm/a readonly",
  ]],
  ["-blockdev file,filename=a,node-name=f,auto-read-only=on -blockdev raw,file=f,node-name=r", [
    "/vm/a exclusive",
  ]],
  [
    "-blockdev file,filename=b,node-name=b,auto-read-only=on -blockdev file,filename=a,node-name=f -blockdev qcow2,file=f,backing=b,node-name=t",
    [
      "/vm/b readonly",
      "/vm/a exclusive",
    ],
  ],
  [
    "-blockdev file,filename=b,node-name=b -blockdev file,filename=a,node-name=f -blockdev qcow2,file=f,backing=b,node-name=t",
    [
      "/vm/b exclusive",
      "/vm/a exclusive",
    ],
  ],
];

Deno.test("whether a disk is written, and by others as well, follows from QEMU's options", async () => {
  for (const [args, disks] of ACCESSES) assert.deepEqual(await disksOf(args), disks, args);
});

Deno.test("an image at an offset is read there", async () => {
  const { read } = await tell(
    "-blockdev driver=qcow2,node-name=n,file.driver=raw,file.offset=4096,file.file.driver=raw,file.file.offset=512,file.file.file.driver=file,file.file.file.filename=a"
      .split(" "),
  );
  assert.deepEqual(read, [{ path: "/vm/a", offset: 4608, format: "qcow2", by: "qcow2" }]);
});

const REFUSED: [string, RegExp][] = [
  ["-drive file=frob://x", /QEMU's -drive: the scheme "frob" is not known/],
  ["-drive file=a,format=frob", /the block driver "frob" is not known/],
  ["-blockdev driver=frob,node-name=n", /QEMU's -blockdev n: the block driver "frob" is not known/],
  ["-blockdev raw,node-name=n,file=none", /there is no node "none" before it/],
  ["-blockdev raw,node-name=n", /it has no "file"/],
  ["-blockdev {", /QEMU's -blockdev: it is not JSON/],
  ["-drive file=json:{", /json:: it is not JSON/],
  ["-drive file=a,readonly=maybe", /readonly=maybe is neither on nor off/],
  ["-drive file=/dev/fdset/1", /which file is behind a descriptor cannot be told/],
  ["-blockdev nbd,node-name=n,server.type=vsock,server.cid=1,server.port=2", /which nbd disk it means/],
  [
    "-blockdev qcow2,node-name=n,file.driver=file,file.filename=a,parent.filename=b",
    /"parent.filename" is not understood/,
  ],
  ["-drive driver=vmdk,file=a,extents.0.file.filename=b", /"extents.0.file.filename" is not understood/],
  ["-drive file=a,driver=quorum,children.0.file.filename=b", /quorum has no file/],
  ["-usbdevice disk:a.img", /only old versions know it/],
  ["-frob", /QEMU's option -frob: it is not known/],
  ["-set drive.x.file=a", /there is no drive "x" before it/],
];

Deno.test("what is not understood and could be a disk is refused with what to do", async () => {
  for (const [args, says] of REFUSED) {
    await assert.rejects(() => tell(args.split(" ")), (error) => {
      assert.ok(error instanceof LockvisorError, args);
      assert.ok(["usage", "data"].includes(error.code), args);
      assert.match(error.message, says, args);
      assert.match(error.message, /state every disk with --disk and add --no-auto/, args);
      return true;
    });
  }
});

Deno.test("a message never has a password in it that stands in an option", async () => {
  for (
    const args of ["-drive file=frob://u:secret@h,id=x", "-drive file=iscsi://u%secret@p/t/1,format=frob"]
  ) {
    await assert.rejects(() => tell(args.split(" ")), (error) => !String(error).includes("secret"));
  }
});

Deno.test("a disk that another process opens is told with a warning", async () => {
  for (
    const args of [
      "-chardev socket,id=c,path=/s -device vhost-user-blk-pci,chardev=c",
      "-device vhost-scsi-pci,wwpn=naa.1",
      "-device vhost-vdpa-device-pci,vhostdev=/dev/vhost-vdpa-0",
      "-blockdev virtio-blk-vhost-user,node-name=n,path=/s",
    ]
  ) {
    const { understood, warnings } = await tell(args.split(" "));
    assert.deepEqual(understood.disks, []);
    assert.equal(warnings.length, 1, args);
    assert.match(
      warnings[0]!,
      /^QEMU's -(device|blockdev).*is not locked here; lock it with that process, or by a --lease$/,
    );
    assert.equal(understood.ignored.length, 1);
  }
});

type Identity = Partial<Pick<UnderstoodQemu, "name" | "uuid" | "qmp" | "incoming" | "daemonize" | "pidfile">>;
const IDENTITIES: [string, Identity][] = [
  ["-name vm1", { name: "vm1" }],
  ["-name vm1,process=x,debug-threads=on", { name: "vm1" }],
  ["-name guest=vm1 -name process=x", { name: "vm1" }],
  ["-name process=x", { name: undefined }],
  ["-name a,,b", { name: "a,b" }],
  ["-uuid 8c1a4b5e-2b6b-4c7e-9d65-3b7c5c0b1f2a", { uuid: "8c1a4b5e-2b6b-4c7e-9d65-3b7c5c0b1f2a" }],
  ["-uuid 00000000-0000-0000-0000-000000000000", { uuid: undefined }],
  ["-qmp unix:/run/q,server=on,wait=off", { qmp: "/run/q" }],
  ["-qmp unix:q,server,nowait", { qmp: "/vm/q" }],
  ["-qmp-pretty unix:/run/q,server=on", { qmp: "/run/q" }],
  ["-qmp unix:/run/q", { qmp: undefined }],
  ["-qmp tcp::4444,server=on", { qmp: undefined }],
  ["-qmp stdio", { qmp: undefined }],
  ["-qmp unix:/a,,b,server=on", { qmp: "/a,b" }],
  ["-qmp unix:@x,server=on,abstract=on", { qmp: undefined }],
  ["-qmp unix:/1,server=on -qmp unix:/2,server=on", { qmp: "/1" }],
  ["-chardev socket,id=c,path=/q,server=on,wait=off -mon chardev=c,mode=control", { qmp: "/q" }],
  ["-mon c,mode=control -chardev socket,id=c,path=/q,server=on", { qmp: "/q" }],
  ["-chardev socket,id=c,path=/q,server=on -mon chardev=c,mode=readline", { qmp: undefined }],
  ["-chardev socket,id=c,path=/q,server=on -qmp chardev:c", { qmp: "/q" }],
  // It is the agent's alone.
  ["-chardev socket,id=lockvisor-events,path=/e,server=on -mon lockvisor-events,mode=control", {
    qmp: undefined,
  }],
  [
    "-chardev socket,id=lockvisor-events,path=/e,server=on -mon lockvisor-events,mode=control -qmp unix:/q,server=on",
    { qmp: "/q" },
  ],
  ["-chardev socket,id=c,fd=3,server=on -mon chardev=c,mode=control", { qmp: undefined }],
  ["-chardev stdio,id=c -mon chardev=c,mode=control", { qmp: undefined }],
  ["-monitor unix:/m,server=on", { qmp: undefined }],
  ["-incoming unix:/m", { incoming: "unix:/m" }],
  ["-daemonize -pidfile /p", { daemonize: true, pidfile: "/p" }],
];

Deno.test("name, UUID, QMP socket, incoming migration and background are read", async () => {
  for (const [args, expected] of IDENTITIES) {
    const { understood } = await tell(args.split(" "));
    for (const [field, value] of Object.entries(expected)) {
      assert.equal(understood[field as keyof Identity], value, `${args}: ${field}`);
    }
  }
});

Deno.test("configuration files count, the default one too unless it is switched off", async () => {
  const config = {
    "/x.conf": '[drive "d0"]\nif = "none"\nfile = "a.raw"\nformat = "raw"\n[name]\nguest = "vm9"\n' +
      '[chardev "c"]\nbackend = "socket"\npath = "/q"\nserver = "on"\n[mon]\nmode = "control"\nchardev = "c"\n' +
      '[device "v"]\ndriver = "virtio-blk-pci"\ndrive = "d0"\nshare-rw = "on"\n',
    default: '[drive "e"]\nfile = "e.raw"\nformat = "raw"\n',
  };
  const { understood } = await tell(["-readconfig", "/x.conf"], {}, config);
  assert.deepEqual(understood.disks.map(({ name, access }) => [name, access]), [
    ["/vm/e.raw", "exclusive"],
    ["/vm/a.raw", "shared"],
  ]);
  assert.equal(understood.name, "vm9");
  assert.equal(understood.qmp, "/q");
  const { understood: without } = await tell(["-S", "-no-user-config"], {}, config);
  assert.deepEqual(without.disks, []);
});

const CHAINS: [string, Images, string[]][] = [
  ["-drive file=o,format=qcow2", { "/vm/o": { backing: { name: "b", format: "qcow2" } } }, [
    "/vm/o exclusive",
    "/vm/b readonly",
  ]],
  ["-drive file=/x/o,format=qcow2", { "/x/o": { backing: { name: "../b", format: "raw" } } }, [
    "/x/o exclusive",
    "/x/../b readonly",
  ]],
  // The format of the backing file is not stated: it is locked, and not looked into.
  ["-drive file=o,format=qcow2", {
    "/vm/o": { backing: { name: "b", format: undefined } },
    "/vm/b": { backing: { name: "c", format: "qcow2" } },
  }, ["/vm/o exclusive", "/vm/b readonly"]],
  ["-drive file=o", { "/vm/o": { backing: { name: "b", format: "qcow2" } } }, ["/vm/o exclusive"]],
  // How the backing file is used is stated, and which it is stands in a header that is not read.
  ["-drive file=o,backing.read-only=on,backing.driver=qcow2", {}, ["/vm/o exclusive"]],
  ["-drive file=o,backing.file.filename=b", {}, ["/vm/o exclusive", "/vm/b readonly"]],
  ["-drive file=o,backing.driver=nbd,backing.host=h", {}, ["/vm/o exclusive", "nbd://h/ readonly"]],
  ["-drive file=o,format=raw", { "/vm/o": { backing: { name: "b", format: "qcow2" } } }, ["/vm/o exclusive"]],
  ["-drive file=o,format=qcow2", { "/vm/o": { backing: { name: "nbd://h/e", format: "raw" } } }, [
    "/vm/o exclusive",
    "nbd://h/e readonly",
  ]],
  ["-drive file=o,format=qcow2", {
    "/vm/o": { backing: { name: 'json:{"driver":"raw","file.filename":"/b"}', format: undefined } },
  }, ["/vm/o exclusive", "/b readonly"]],
  ["-drive file=o,format=qcow2", { "/vm/o": { data: ["d"] } }, ["/vm/o exclusive", "/vm/d exclusive"]],
  ["-drive file=/x/o,format=qcow2,readonly=on", { "/x/o": { data: ["d"] } }, [
    "/x/o readonly",
    "/vm/d readonly",
  ]],
  // A backing file's own data file is only read.
  ["-drive file=o,format=qcow2", {
    "/vm/o": { backing: { name: "b", format: "qcow2" } },
    "/vm/b": { data: ["/d"] },
  }, ["/vm/o exclusive", "/vm/b readonly", "/d readonly"]],
  [
    "-drive file=o,format=vmdk",
    { "/vm/o": { data: ["/vm/o-flat"], backing: { name: "p", format: "vmdk" } } },
    [
      "/vm/o exclusive",
      "/vm/o-flat exclusive",
      "/vm/p readonly",
    ],
  ],
];

Deno.test("chains are followed as far as formats are stated", async () => {
  for (const [args, images, disks] of CHAINS) {
    assert.deepEqual((await disksOf(args, images)).sort(), [...disks].sort(), args);
  }
});

Deno.test("formats that have no other files are not read", async () => {
  for (const format of ["raw", "vdi", "vhdx", "vpc", "luks", "parallels"]) {
    const { read } = await tell(["-drive", `file=o,format=${format}`]);
    assert.deepEqual(read, [], format);
  }
});

Deno.test("a name that not all of QEMU's versions take for a path is refused as a data file", async () => {
  for (const name of ["nbd://h/x", 'json:{"driver":"file"}', "a:b"]) {
    await assert.rejects(
      () => tell(["-drive", "file=o,format=qcow2"], { "/vm/o": { data: [name] } }),
      /data file of \/vm\/o: QEMU's versions do not agree/,
    );
  }
});

Deno.test("a loop of backing files, and a chain without an end, are refused", async () => {
  const loop: Images = {
    "/vm/o": { identity: "1", backing: { name: "b", format: "qcow2" } },
    "/vm/b": { identity: "2", backing: { name: "link", format: "qcow2" } },
    "/vm/link": { identity: "1", backing: { name: "b", format: "qcow2" } },
  };
  await assert.rejects(
    () => tell(["-drive", "file=o,format=qcow2"], loop),
    /^LockvisorError: disk \/vm\/o: its backing files come back to \/vm\/link, so that QEMU would never end/,
  );
  const long = Object.fromEntries(Array.from({ length: 200 }, (_, level) => {
    const backing = { name: `${level + 1}`, format: level === 199 ? "raw" : "qcow2" };
    return [`/vm/${level}`, { backing }];
  }));
  assert.equal((await disksOf("-drive file=0,format=qcow2", long)).length, 201);
  long["/vm/199"]!.backing.format = "qcow2";
  await assert.rejects(() => disksOf("-drive file=0,format=qcow2", long), /more than 200 deep/);
  const endless = new Proxy<Images>({}, {
    get: (_, path) => ({ backing: { name: `${String(path)}x`, format: "qcow2" } }),
  });
  await assert.rejects(
    () => tell(["-drive", "file=o,format=qcow2"], endless),
    /disk \/vm\/o: its backing files lie on each other more than 200 deep/,
  );
});

Deno.test("a header that cannot be reached from here is told with a warning, unless the backing file is stated", async () => {
  const { understood, warnings } = await tell(["-drive", "file=nbd://h/e,format=qcow2"]);
  assert.equal(understood.disks.length, 1);
  assert.match(
    warnings[0]!,
    /-drive: the header of a qcow2 image that is not in a file of this host is not read/,
  );
  const stated = await tell([
    "-blockdev",
    '{"driver":"qcow2","node-name":"n","backing":null,"file":{"driver":"nbd","server":{"type":"inet","host":"h","port":"1"}}}',
  ]);
  assert.deepEqual(stated.warnings, []);
});
