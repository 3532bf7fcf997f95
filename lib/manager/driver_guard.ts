import type { DriverDefinition, LockWatch, PartialDriver } from "../driver/contract.ts";
import { errnoOf, fileError, isErrorCode, LockvisorError } from "../errors.ts";
import { isCount, JsonFields, WrongShape } from "../files/json_shape.ts";
import { readGrant, readGrants } from "../lockspace/granted_key.ts";
import { readTicketFields } from "../lockspace/migration_ticket.ts";
import { readCarrier, readKey, readLock } from "./guest_record.ts";

/**
 * A driver that is not ours, with its mistakes caught where they happen: what it throws becomes an error that names the
 * plugin, and what it grants is looked at before it goes into a record.
 */
export function guarded(path: string, definition: DriverDefinition): DriverDefinition {
  const create = (config: Parameters<DriverDefinition["create"]>[0]) =>
    guardMethods(path, "create", watched(path, "create", () => definition.create(config)));
  // The definition's type ties its methods to its abilities; the wrapped driver has the same ones.
  return { ...definition, create } as DriverDefinition;
}

/** @param maker what has given the object, in the driver's words */
function guardMethods<Methods extends PartialDriver | LockWatch>(
  path: string,
  maker: string,
  made: Methods,
): Methods {
  if (typeof made !== "object" || made === null) {
    throw new LockvisorError(
      "unavailable",
      `plugin ${path} is no driver: "${maker}" gave no object; see docs/plugins.md`,
    );
  }
  return new Proxy(made, {
    get(own, name) {
      const method = Reflect.get(own, name, own);
      if (typeof name !== "string" || typeof method !== "function") return method;
      return (...args: unknown[]) => {
        const result = watched(path, name, () => checked(path, name, Reflect.apply(method, own, args)));
        if (name !== "watchLocks") return result;
        return Promise.resolve(result).then((watch) => guardMethods(path, name, watch as LockWatch));
      };
    },
  });
}

/** Does something of a driver; what it throws, now or later, is told as the driver's. */
function watched<Result>(path: string, method: string, action: () => Result): Result {
  try {
    const result = action();
    if (!(result instanceof Promise)) return result;
    return result.catch((error) => {
      throw driverError(path, method, error);
    }) as Result;
  } catch (error) {
    throw driverError(path, method, error);
  }
}

/**
 * What a driver threw as an error of ours. An Error whose `code` is one of ours keeps it, one of a file operation gets
 * the fitting one, and all else is a mistake in the driver.
 */
export function driverError(path: string, method: string, error: unknown): LockvisorError {
  if (error instanceof LockvisorError) return error;
  const message = error instanceof Error ? error.message : String(error);
  const code = error instanceof Error ? (error as Error & { code?: unknown }).code : undefined;
  if (isErrorCode(code)) return new LockvisorError(code, `plugin ${path}: ${message}`, { cause: error });
  if (errnoOf(error) !== "") return fileError(`go on in "${method}" of plugin ${path}`, error);
  return new LockvisorError("internal", `plugin ${path}: "${method}" failed: ${message}`, { cause: error });
}

/** What goes into records is looked at; a grant that is none is given back. */
function checked(path: string, method: string, result: unknown): unknown {
  const check = CHECKS[method];
  if (check === undefined) return result;
  return Promise.resolve(result).then((outcome) => {
    try {
      check(new JsonFields(LISTING.has(method) ? { list: outcome } : outcome));
      return outcome;
    } catch (error) {
      if (!(error instanceof WrongShape)) throw error;
      giveBack(outcome);
      throw new LockvisorError(
        "internal",
        `plugin ${path}: what "${method}" gave cannot be used: ${error.message}`,
      );
    }
  });
}

/** By method: throws {@linkcode WrongShape} for an outcome that cannot be used. */
const CHECKS: Record<string, (outcome: JsonFields) => void> = {
  acquire: (outcome) => void readHold(outcome),
  acquireIncoming: (outcome) => {
    const hold = readHold(outcome);
    if (hold?.get("unlocked", (_value): _value is unknown => true, "") === undefined) return;
    hold.list("unlocked", readDescriptor);
  },
  makeTicket: (outcome) => void readTicketFields(outcome),
  takeOver: (outcome) => readHalves(outcome, { had: "taken", otherwise: "waiting" }),
  withdraw: (outcome) => {
    if (outcome.text("outcome") !== "declined") readHalves(outcome, { had: "withdrawn", otherwise: "taken" });
  },
  otherSide: (outcome) => {
    outcome.get("held", (held) => held === null || typeof held === "boolean", "true, false or null");
    outcome.list("holders", readHolder);
  },
  adopt: (outcome) => {
    if (isRefused(outcome)) return;
    readCarrier(outcome.get("carrier", isObject, "a carrier"));
    outcome.list("leaseKeys", readKey);
  },
  plug: (outcome) => {
    if (!isRefused(outcome)) readCarrier(outcome.get("carrier", isObject, "a carrier"));
  },
  unplug: (outcome) => {
    outcome.list("carriers", readCarrier);
    outcome.list("missing", readKey);
  },
  changeAccess: (outcome) => {
    const kind = outcome.text("outcome");
    if (kind === "changed") outcome.list("grants", readGrant);
    else if (kind === "lost") readKey(outcome.text("key"));
    else if (kind === "refused") readRefusal(outcome);
    else throw new WrongShape(`field "outcome" of it is not changed, refused or lost`);
  },
  doubts: (outcome) => outcome.list("list", readDoubt),
  confirm: (outcome) => outcome.list("list", readDoubt),
};

/** The hold of an outcome that grants something. */
function readHold(outcome: JsonFields): JsonFields | undefined {
  if (isRefused(outcome)) return undefined;
  const hold = new JsonFields(outcome.get("hold", isHold, `an object with a method "giveBack"`), "the hold");
  hold.list("locks", readLock);
  hold.list("leaseKeys", readKey);
  return hold;
}

function readDescriptor(value: unknown): void {
  if (!isCount(value)) throw new WrongShape("an unlocked descriptor is not a number");
}

/** What asking for the other side's half of the locks gave: all of it, or that somebody has it, or that it is lost. */
function readHalves(outcome: JsonFields, { had, otherwise }: { had: string; otherwise: string }): void {
  const kind = outcome.text("outcome");
  if (![had, otherwise, "lost"].includes(kind)) {
    throw new WrongShape(`field "outcome" of it is not ${had}, ${otherwise} or lost`);
  }
  if (kind === had) {
    outcome.list("carriers", readCarrier);
    readGrants(outcome);
  } else {
    readKey(outcome.text("key"));
    if (kind === otherwise) outcome.list("holders", readHolder);
  }
}

function readHolder(value: unknown): void {
  new JsonFields(value, "a holder").optionalText("name");
}

/** What gives a list and no object. */
const LISTING: ReadonlySet<string> = new Set(["doubts", "confirm"]);

/** A guest that would not be found is taken for one without doubt: better none is told of at all. */
function readDoubt(value: unknown): void {
  const doubt = new JsonFields(value, "a doubt");
  doubt.text("uuid");
  doubt.text("cause");
}

/** Whether an outcome is a refusal, which names a resource and holders then. */
function isRefused(outcome: JsonFields): boolean {
  const kind = outcome.get(
    "outcome",
    (value) => value === "granted" || value === "refused",
    "granted or refused",
  );
  if (kind === "granted") return false;
  readRefusal(outcome);
  return true;
}

function readRefusal(outcome: JsonFields): void {
  const refusal = outcome.object("refusal");
  const resource = refusal.object("resource");
  resource.text("type");
  resource.text("name");
  refusal.list("holders", readHolder);
}

function isObject(value: unknown): value is object {
  return typeof value === "object" && value !== null;
}

function isHold(value: unknown): value is { giveBack(): void } {
  return isObject(value) && "giveBack" in value && typeof value.giveBack === "function";
}

function giveBack(outcome: unknown): void {
  if (isObject(outcome) && "hold" in outcome && isHold(outcome.hold)) outcome.hold.giveBack();
}
