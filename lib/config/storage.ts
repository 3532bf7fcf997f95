import { type Given, invalid, path, storageId, type ValueOrigin } from "./values.ts";

/** A directory that the administrator declares to be the same shared storage on every host. */
export interface DeclaredStorage {
  /** Where it is on this host: an absolute path. */
  path: string;
  /** What it is called on every host. */
  id: string;
}

/** A declaration as given. */
export interface GivenStorage {
  path: Given;
  id: Given;
}

/** Each flag is one `ID=PATH`. @throws LockvisorError `usage` */
export function storageInFlags(values: readonly string[]): GivenStorage[] {
  return values.map((text) => declaration(text, { kind: "flag", name: "--storage" }));
}

/**
 * `ID=PATH;ID=PATH…`; a `;` that belongs to a path is doubled. Empty entries do not count, so that a `;` at the
 * end does no harm.
 *
 * @throws LockvisorError `config`
 */
export function storageInVariable(name: string, value: string): GivenStorage[] {
  // No path has a NUL, so it can hold the place of a doubled semicolon.
  return value.replaceAll(";;", "\0").split(";").map((entry) => entry.replaceAll("\0", ";"))
    .filter((entry) => entry !== "")
    .map((entry) => declaration(entry, { kind: "environment", name }));
}

/** Checks declarations; the same one twice counts once. @throws LockvisorError `usage` or `config` */
export function declaredStorage(given: readonly GivenStorage[], cwd?: string): DeclaredStorage[] {
  const checked = given.map((each) => ({ path: path(each.path, cwd), id: storageId(each.id) }));
  return checked.filter((each, index) =>
    checked.findIndex((other) => other.path === each.path && other.id === each.id) === index
  );
}

function declaration(text: string, origin: ValueOrigin): GivenStorage {
  const equals = text.indexOf("=");
  if (equals <= 0) throw invalid({ text, origin }, "ID=PATH");
  return { id: { text: text.slice(0, equals), origin }, path: { text: text.slice(equals + 1), origin } };
}
