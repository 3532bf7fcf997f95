import { LockvisorError } from "../errors.ts";
import { absolutePath } from "../identity/absolute_path.ts";

/** Where a value comes from: decides the error's code, and whether a path may be relative. */
export type ValueOrigin =
  /** A flag of the command line, as `--host-id`. */
  | { kind: "flag"; name: string }
  /** An environment variable. */
  | { kind: "environment"; name: string }
  /** A key of the configuration file, with the line it is on, counted from 1. */
  | { kind: "file"; name: string; file: string; line: number };

/** A value as given, and where. */
export interface Given {
  text: string;
  origin: ValueOrigin;
}

/** A host's name in identities, and a declared storage's id. */
const NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/;
const NAME_FORM = "1 to 64 of the characters A-Z a-z 0-9 _ . -, the first a letter or digit";

/** The error for a value that cannot be used: `usage` for a flag, `config` for everything else. */
export function invalid({ text, origin }: Given, wanted: string): LockvisorError {
  const message = `${placeOf(origin)} is "${text}"; it must be ${wanted}`;
  return new LockvisorError(origin.kind === "flag" ? "usage" : "config", message);
}

function placeOf(origin: ValueOrigin): string {
  switch (origin.kind) {
    case "flag":
      return origin.name;
    case "environment":
      return `environment variable ${origin.name}`;
    case "file":
      return `${origin.file}:${origin.line}: ${origin.name}`;
  }
}

/** One of a few words. @throws LockvisorError `usage` or `config` */
export function oneOf<T extends string>(given: Given, words: readonly T[]): T {
  const word = words.find((candidate) => candidate === given.text);
  if (word === undefined) throw invalid(given, `one of ${words.join(", ")}`);
  return word;
}

/**
 * A path, absolute in the end: from a flag or an environment variable it may start from the current directory.
 *
 * @throws LockvisorError `usage` or `config`
 */
export function path(given: Given, cwd?: string): string {
  if (given.text === "") throw invalid(given, "a path");
  if (given.text.includes("\0")) throw invalid(given, "a path without NUL");
  if (given.origin.kind === "file" && !given.text.startsWith("/")) throw invalid(given, "an absolute path");
  const absolute = absolutePath(given.text, cwd);
  return absolute === "/" ? absolute : absolute.replace(/\/$/, "");
}

/** A host's id. @throws LockvisorError `usage` or `config` */
export function hostId(given: Given): string {
  if (!NAME.test(given.text)) throw invalid(given, NAME_FORM);
  return given.text;
}

/** A storage's id. @throws LockvisorError `usage` or `config` */
export function storageId(given: Given): string {
  if (!NAME.test(given.text)) throw invalid(given, NAME_FORM);
  return given.text;
}

/** Whether a text can be a host's id; for the one that comes from `/etc/machine-id`. */
export function isHostId(text: string): boolean {
  return NAME.test(text);
}
