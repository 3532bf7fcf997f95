import { isNetworkFilesystem } from "../identity/filesystems.ts";
import type { Mount } from "../identity/mounts.ts";
import { failure, type Judgement, ok, warning } from "./finding.ts";

/** What a mount tells about its locks. */
export interface MountFacts extends Pick<Mount, "fstype" | "options"> {
  /** `shared`: the configuration ([[storage]]) says that other hosts have the directory too. */
  declared?: "shared";
}

/**
 * Whether flock(2) on a filesystem keeps out other processes, and other hosts where hosts share it, as a function
 * of the mount alone. Sources: flock(2), nfs(5), mount.cifs(8), mount.lustre(8), mount.ocfs2(8), gfs2(5), the
 * kernel's Documentation/filesystems/9p.rst.
 */
export function judgeFilesystem(mount: MountFacts): Judgement {
  const judge = JUDGES.get(mount.fstype) ?? (mount.fstype.startsWith("fuse") ? judgeFuse : undefined);
  if (judge !== undefined) return judge(mount);
  if (isNetworkFilesystem(mount.fstype)) {
    return warning(
      `${mount.fstype}: it is not known here whether its flock reaches other hosts; try it: flock FILE sleep 60 on one host, flock -n FILE true on another`,
    );
  }
  if (mount.declared === "shared") {
    return warning(
      `${mount.fstype}, declared as shared storage: flock reaches only what runs on this kernel, such as containers; for hosts of their own take NFSv4 or a cluster filesystem`,
    );
  }
  return ok(`${mount.fstype}: flock works between all processes of this host; no other host sees it`);
}

const JUDGES = new Map<string, (mount: MountFacts) => Judgement>(Object.entries({
  nfs: judgeNfs,
  nfs4: judgeNfs,
  cifs: judgeSmb,
  smb3: judgeSmb,
  gfs2: judgeGfs2,
  ocfs2: judgeOcfs2,
  lustre: judgeLustre,
  ceph: () =>
    ok(
      "ceph: the metadata server keeps flock for all hosts; a host that it evicts loses its locks, so fence that host before its guests start elsewhere",
    ),
  "fuse.glusterfs": () =>
    warning(
      "fuse.glusterfs: flock reaches other hosts, but the kernel's tables do not show it, the death of the client daemon (glusterfs) frees the locks of living guests, and a restarted brick forgets them in silence unless strict-locks is on: gluster volume set VOLUME client.strict-locks on",
    ),
  "fuse.sshfs": () =>
    failure("fuse.sshfs: flock stays on this host; put the lockspace on NFSv4 or a cluster filesystem"),
  virtiofs: () =>
    warning(
      "virtiofs: flock stays inside this virtual machine unless virtiofsd passes it on, and the kernel's tables may not show it; other machines are not kept out",
    ),
  "9p": judge9p,
  overlay: () =>
    warning(
      "overlay: flock works among processes that share this overlay only; another container or image layer has files of its own; bind-mount a directory of the host for the lockspace",
    ),
  tmpfs: judgeMemory,
  ramfs: judgeMemory,
}));

function judgeNfs({ fstype, options }: MountFacts): Judgement {
  const version = valueOf(options, "vers") ?? valueOf(options, "nfsvers") ?? (fstype === "nfs4" ? "4" : "3");
  const name = `NFS ${version}`;
  const local = valueOf(options, "local_lock");
  if (options.includes("nolock") || local === "all" || local === "flock") {
    const option = options.includes("nolock") ? "nolock" : `local_lock=${local}`;
    return failure(
      `${name} with ${option}: flock stays on this host and keeps no other host out; mount it without ${option}, best as NFS 4.2`,
    );
  }
  if (!version.startsWith("4")) {
    return warning(
      `${name}: flock reaches other hosts only while lockd and statd run on them and on the server, and a host that died keeps its locks until it is back; mount it as NFS 4.2`,
    );
  }
  return ok(
    `${name}: the server keeps flock for all hosts; a host that loses the server for longer than the lease time loses its locks, so fence that host before its guests start elsewhere`,
  );
}

function judgeSmb({ fstype, options }: MountFacts): Judgement {
  if (options.includes("nobrl")) {
    return failure(`${fstype} with nobrl: locks are not sent to the server; mount it without nobrl`);
  }
  return warning(
    `${fstype}: flock becomes an SMB byte-range lock, which a lost connection drops in silence; prefer NFSv4 or a cluster filesystem`,
  );
}

function judgeGfs2({ options }: MountFacts): Judgement {
  if (options.includes("localflocks")) {
    return failure("gfs2 with localflocks: flock stays on this host; mount it without localflocks");
  }
  if (valueOf(options, "lockproto") === "lock_nolock") {
    return failure(
      "gfs2 with lock_nolock: it is mounted for a single host; mount it with lockproto=lock_dlm",
    );
  }
  return ok("gfs2: the cluster's lock manager (DLM) keeps flock for all hosts");
}

function judgeOcfs2({ options }: MountFacts): Judgement {
  if (options.includes("localflocks")) {
    return failure("ocfs2 with localflocks: flock stays on this host; mount it without localflocks");
  }
  if (options.includes("heartbeat=none")) {
    return failure("ocfs2 with heartbeat=none: it is mounted for a single host; mount it in the cluster");
  }
  return ok(
    "ocfs2: the cluster's lock manager keeps flock for all hosts, if the cluster stack is o2cb or pcmk",
  );
}

function judgeLustre({ options }: MountFacts): Judgement {
  if (options.includes("localflock")) {
    return failure("lustre with localflock: flock stays on this host; mount it with flock");
  }
  if (options.includes("noflock")) {
    return failure("lustre with noflock: it offers no flock; mount it with flock");
  }
  return options.includes("flock")
    ? ok("lustre with flock: the metadata server keeps flock for all hosts")
    : warning("lustre: the mount does not say how it treats flock; mount it with flock");
}

function judge9p({ options }: MountFacts): Judgement {
  return valueOf(options, "trans") === "virtio"
    ? failure(
      "9p from QEMU: its server grants every lock, so no other machine is kept out; use a directory of this machine, or NFSv4",
    )
    : warning(
      "9p: the server decides whether flock reaches other machines, and many grant every lock; use a directory of this machine, or NFSv4",
    );
}

function judgeFuse({ fstype }: MountFacts): Judgement {
  return warning(
    `${fstype}: each FUSE program decides for itself whether flock reaches other hosts; the kernel's tables may not show it, and the death of that program frees the locks of living guests`,
  );
}

function judgeMemory({ fstype }: MountFacts): Judgement {
  return warning(
    `${fstype}: flock works between all processes of this host, but generations are lost when it restarts; put the lockspace on a disk`,
  );
}

/** The value of a mount option `name=value`. */
function valueOf(options: readonly string[], name: string): string | undefined {
  return options.find((option) => option.startsWith(`${name}=`))?.slice(name.length + 1);
}
