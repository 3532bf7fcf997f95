/**
 * Filesystems whose files other hosts may see too, by the type that `/proc/self/mountinfo` gives, without the
 * `fuse.` that a FUSE program puts in front. What is missing here is taken for a filesystem of this host alone;
 * `[[storage]]` in the configuration says otherwise for a directory.
 */
const NETWORK_FILESYSTEMS: ReadonlySet<string> = new Set([
  // File servers.
  "nfs", // NFS 2 and 3
  "nfs4",
  "cifs", // SMB, whatever the dialect
  "smb3",
  "smbfs",
  "smbnetfs",
  "afs",
  "afpfs",
  "ncpfs",
  "sshfs",
  "davfs",
  "davfs2",
  "rclone",
  // Directories of the machine that this virtual machine runs on.
  "9p",
  "virtiofs",
  "vmhgfs",
  "vmhgfs-fuse",
  "vboxsf",
  "prl_fs",
  // Cluster filesystems on a shared block device.
  "gfs",
  "gfs2",
  "ocfs2",
  "vmfs-fuse",
  // Distributed filesystems.
  "ceph",
  "ceph-fuse",
  "glusterfs",
  "lustre",
  "beegfs",
  "gpfs",
  "orangefs",
  "pvfs2",
  "panfs",
  "wekafs",
  "quobyte",
  "juicefs",
  "JuiceFS",
  "moosefs",
  "mfs",
  "mfsmount",
  "lizardfs",
  "saunafs",
  "cubefs",
  "seaweedfs",
  "xtreemfs",
  "cvmfs2",
  "coda",
  "hdfs",
  "s3fs",
  "gcsfuse",
  "goofys",
]);

/** Filesystems that answer flock(2) themselves, so that the kernel's tables on this host need not show the lock. */
const HIDE_LOCKS: ReadonlySet<string> = new Set(["fuse", "virtiofs", "lustre", "beegfs", "gpfs"]);

/** Whether files of this filesystem may be open on other hosts at the same time. */
export function isNetworkFilesystem(fstype: string): boolean {
  return NETWORK_FILESYSTEMS.has(fstype.replace(/^fuse\./, ""));
}

/**
 * Whether a lock on this filesystem may be held without a line in `/proc/locks` and `/proc/PID/fdinfo`: "not
 * shown" is then not "not held", and only trying tells. True for every FUSE program, since each decides for
 * itself whether it answers flock (FUSE_FLOCK_LOCKS in fuse.h).
 */
export function hidesLocks(fstype: string): boolean {
  return fstype.startsWith("fuse.") || HIDE_LOCKS.has(fstype);
}
