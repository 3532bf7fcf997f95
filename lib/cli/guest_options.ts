import type { OnLockFailure } from "../driver/contract.ts";
import { LockvisorError } from "../errors.ts";
import { absolutePath } from "../identity/absolute_path.ts";
import { parseDisk, parseLease } from "../identity/specification.ts";
import { DEFAULT_DRIVER } from "../manager/registry.ts";
import { DISK_OPTION, LEASE_OPTION, type OptionDefinition } from "./definition.ts";
import type { OptionValues } from "./parse.ts";

/** What says who a new guest is and what it uses. */
export const GUEST_OPTIONS: readonly OptionDefinition[] = [
  {
    name: "name",
    placeholder: "NAME",
    summary: "the guest's name, unique on this host; required, unless QEMU's options have it (run)",
  },
  { name: "uuid", placeholder: "UUID", summary: "the guest's UUID (default: made from the name)" },
  { name: "id", placeholder: "ID", summary: "an id of the management tool's own" },
  DISK_OPTION,
  LEASE_OPTION,
  {
    name: "plugin",
    placeholder: "NAME",
    default: DEFAULT_DRIVER,
    summary: "the driver; with a / in it the path of its module",
  },
];

/** What is to be done when a lock is lost. */
export const LOCK_FAILURE_OPTION: OptionDefinition = {
  name: "on-lock-failure",
  placeholder: "ACTION",
  choices: ["pause", "kill", "ignore"],
  default: "pause",
  summary: "what becomes of the guest when a lock is lost for good",
};

/** What a guest's own command says about it. */
export interface CommandFacts {
  name: string | undefined;
  uuid: string | undefined;
  /** The absolute path of its QMP socket. */
  qmp: string | undefined;
}

/**
 * A new guest as its options describe it, a relative socket meant from here.
 * @param facts what counts where an option is not given
 * @throws {LockvisorError} `usage` without a name, `data` for a disk or lease that is written wrongly
 */
export function readGuest(command: "run" | "adopt", options: OptionValues, facts?: CommandFacts) {
  const name = options.text("name") ?? facts?.name;
  if (name === undefined) {
    const other = facts === undefined ? "" : ", or -name NAME to QEMU's options";
    throw new LockvisorError("usage", `${command}: the guest needs a name; add --name NAME${other}`);
  }
  const qmp = options.text("qmp");
  return {
    name,
    uuid: options.text("uuid") ?? facts?.uuid,
    id: options.text("id"),
    qmp: qmp === undefined ? facts?.qmp : absolutePath(qmp),
    onLockFailure: options.text("on-lock-failure") as OnLockFailure | undefined,
    resources: [...options.texts("disk").map(parseDisk), ...options.texts("lease").map(parseLease)],
  };
}
