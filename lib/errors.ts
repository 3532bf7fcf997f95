/** What went wrong, as a closed list: each kind tells the caller what to do next. */
export type ErrorCode =
  | "usage"
  | "data"
  | "unavailable"
  | "internal"
  | "cannot-create"
  | "io"
  | "locked"
  | "permission"
  | "config"
  | "not-executable"
  | "not-found";

/** Exit statuses by error code: sysexits(3), and the shell's own 126 and 127 for a command that cannot run. */
const EXIT_STATUS: Record<ErrorCode, number> = {
  usage: 64,
  data: 65,
  unavailable: 69,
  internal: 70,
  "cannot-create": 73,
  io: 74,
  locked: 75,
  permission: 77,
  config: 78,
  "not-executable": 126,
  "not-found": 127,
};

/** Whether a value names a kind of error. */
export function isErrorCode(value: unknown): value is ErrorCode {
  return typeof value === "string" && Object.hasOwn(EXIT_STATUS, value);
}

/** The exit status that stands for an error code. */
export function exitStatusOf(code: ErrorCode): number {
  return EXIT_STATUS[code];
}

/** Fields of an error for programs; they appear beside `code` and `message` in JSON output. */
export type ErrorDetails = Record<string, unknown>;

/**
 * The one error class. Its message is one line that names the object, what was wanted, who stands in the way
 * and what to do next; line breaks and other control characters in it are escaped.
 */
export class LockvisorError extends Error {
  readonly code: ErrorCode;
  readonly details: ErrorDetails;

  constructor(code: ErrorCode, message: string, options: { details?: ErrorDetails; cause?: unknown } = {}) {
    super(printable(message), options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "LockvisorError";
    this.code = code;
    this.details = options.details ?? {};
  }

  /** What `--json` prints in place of the message. */
  toJSON(): { error: ErrorDetails & { code: ErrorCode; message: string } } {
    return { error: { code: this.code, message: this.message, ...this.details } };
  }
}

/** The text with control characters escaped, so that a hostile file name can neither break a line nor steer a terminal. */
export function printable(text: string): string {
  // deno-lint-ignore no-control-regex
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g, (character) => {
    if (character === "\n") return "\\n";
    if (character === "\t") return "\\t";
    if (character === "\r") return "\\r";
    return `\\u${character.codePointAt(0)!.toString(16).padStart(4, "0")}`;
  });
}

/** The system's error name (`ENOSPC`, `EACCES` …) of something that a file operation threw, or "" when it has none. */
export function errnoOf(error: unknown): string {
  if (!(error instanceof Error)) return "";
  const { code } = error as Error & { code?: unknown };
  if (typeof code === "string") return code;
  // Some of the runtime's messages carry only the number, in the form "… (os error 28)".
  const number = /\(os error (\d+)\)/.exec(error.message)?.[1];
  return number === undefined ? "" : ERRNO_NAMES[Number(number)] ?? `errno ${number}`;
}

const ERRNO_NAMES: Record<number, string> = {
  1: "EPERM",
  2: "ENOENT",
  3: "ESRCH",
  5: "EIO",
  11: "EAGAIN",
  12: "ENOMEM",
  13: "EACCES",
  17: "EEXIST",
  20: "ENOTDIR",
  21: "EISDIR",
  22: "EINVAL",
  23: "ENFILE",
  24: "EMFILE",
  28: "ENOSPC",
  30: "EROFS",
  36: "ENAMETOOLONG",
  37: "ENOLCK",
  38: "ENOSYS",
  40: "ELOOP",
  77: "EBADFD",
  95: "EOPNOTSUPP",
  103: "ECONNABORTED",
  107: "ENOTCONN",
  116: "ESTALE",
  122: "EDQUOT",
};

/** A file operation's failure as an error with the fitting code: permission, no room, or plain I/O. */
export function fileError(action: string, error: unknown): LockvisorError {
  const errno = errnoOf(error);
  const reason = error instanceof Error ? error.message : String(error);
  const text = `cannot ${action}: ${REASONS[errno] ?? reason}`;
  return new LockvisorError(CODE_OF_ERRNO[errno] ?? "io", text, { cause: error });
}

const CODE_OF_ERRNO: Record<string, ErrorCode> = {
  EACCES: "permission",
  EPERM: "permission",
  EROFS: "cannot-create",
  ENOSPC: "cannot-create",
  EDQUOT: "cannot-create",
  ENAMETOOLONG: "data",
  ELOOP: "data",
  ENOTDIR: "data",
};

/** How FUSE filesystems answer without their program, and some when their server is away. */
const CUT_OFF =
  "its filesystem is cut off: the program that serves it here, or its server, is gone; bring the server back, or mount it anew (umount -l, then mount)";

const REASONS: Record<string, string> = {
  EACCES: "permission denied",
  EPERM: "operation not permitted",
  EROFS: "the filesystem is read-only",
  ENOSPC: "no space is left on the filesystem; make room there and try again",
  EDQUOT: "the disk quota is used up",
  EIO: "input/output error",
  ENOENT: "no such file or directory",
  ENOTDIR: "a component of the path is not a directory",
  ELOOP: "too many levels of symbolic links",
  ENAMETOOLONG: "the name is too long",
  EMFILE: "too many open descriptors; raise the limit (ulimit -n, LimitNOFILE=)",
  ENFILE: "the system is out of file descriptors",
  EBADFD:
    "the storage server has forgotten the lock that a process of this host had on it; end the guest that has it open",
  ECONNABORTED: CUT_OFF,
  ENOTCONN: CUT_OFF,
  ESTALE: "stale file handle; the shared filesystem was remounted or the file was replaced",
};
