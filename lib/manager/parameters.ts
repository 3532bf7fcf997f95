import type { OnLockFailure } from "../driver/contract.ts";
import type { MigrationTicket } from "../driver/migration.ts";
import { LockvisorError } from "../errors.ts";
import { normaliseUuid } from "../identity/key.ts";
import { isOnLockFailure } from "./guest_record.ts";

/** What can be told to a manager before it acquires, with the type of each value. */
export interface Parameters {
  id: string;
  uuid: string;
  name: string;
  pid: number;
  /** Where a migration goes to. */
  uri: string;
  /** The path of the guest's QMP socket. */
  qmp: string;
  "on-lock-failure": OnLockFailure;
  /** The ticket that a guest comes in by, as `prepareMigrate` gave it. */
  ticket: MigrationTicket;
  /** The command that the guest is, for people. */
  command: string[];
}

type Checks = { [Name in keyof Parameters]: (value: unknown) => Parameters[Name] };

const CHECKS: Checks = {
  id: (value) =>
    matching(value, "id", /^[A-Za-z0-9_.:-]{1,64}$/, "1 to 64 letters, digits, or any of . _ : -"),
  uuid: (value) => {
    if (typeof value === "string") return normaliseUuid(value);
    throw wrongValue("uuid", value, "a UUID");
  },
  name: checkName,
  pid: (value) => {
    if (typeof value === "number" && Number.isInteger(value) && value > 0) return value;
    throw wrongValue("pid", value, "a whole number above 0");
  },
  uri: (value) => {
    if (typeof value === "string" && URL.canParse(value)) return value;
    throw wrongValue("uri", value, "a URI");
  },
  qmp: (value) => matching(value, "qmp", /^[^\0]+$/s, "the path of a unix socket"),
  "on-lock-failure": (value) => {
    if (isOnLockFailure(value)) return value;
    throw wrongValue("on-lock-failure", value, "pause, kill or ignore");
  },
  ticket: (value) => {
    // What it says is looked at when it is used; the start of a guest shall not read how.
    if (typeof value === "object" && value !== null && "secret" in value) return value as MigrationTicket;
    throw new LockvisorError("usage", "ticket: the value is no ticket of a migration");
  },
  command: (value) => {
    if (Array.isArray(value) && value.every((word) => typeof word === "string")) return value;
    throw wrongValue("command", value, "a list of words");
  },
};

/** The checked value of a parameter. @throws {LockvisorError} `usage` for an unknown name or a wrong value */
export function checkParameter<Name extends keyof Parameters>(name: Name, value: unknown): Parameters[Name] {
  if (!Object.hasOwn(CHECKS, name)) {
    throw new LockvisorError(
      "usage",
      `setParameter: unknown parameter "${name}"; there are: ${Object.keys(CHECKS).join(", ")}`,
    );
  }
  return CHECKS[name](value);
}

/** The uuid or name of the guest that is to be found. @throws {LockvisorError} `usage` where neither was set */
export function guestToFind({ uuid, name }: Partial<Parameters>): string {
  const wanted = uuid ?? name;
  if (wanted !== undefined) return wanted;
  throw new LockvisorError("usage", `attach: the guest has no name; set the parameter "name" or "uuid"`);
}

const NAME_MAX = 255;

function checkName(value: unknown): string {
  // deno-lint-ignore no-control-regex
  const unprintable = /[\u0000-\u001f\u007f-\u009f\u2028\u2029\ufffd]/;
  const length = typeof value === "string" ? [...value].length : 0;
  if (
    typeof value === "string" && length >= 1 && length <= NAME_MAX && !value.includes("/") &&
    !unprintable.test(value) && value.trim() !== ""
  ) return value;
  throw wrongValue("name", value, `1 to ${NAME_MAX} printable characters without "/"`);
}

function matching(value: unknown, name: string, pattern: RegExp, wanted: string): string {
  if (typeof value === "string" && pattern.test(value)) return value;
  throw wrongValue(name, value, wanted);
}

function wrongValue(name: string, value: unknown, wanted: string): LockvisorError {
  const shown = typeof value === "string" && value.length > 80 ? `${value.slice(0, 80)}…` : value;
  return new LockvisorError("usage", `${name} ${JSON.stringify(shown)} is not ${wanted}`);
}
