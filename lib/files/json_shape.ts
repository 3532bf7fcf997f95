/**
 * Reading JSON that somebody else may have written: each function gives the value if it has the wanted type and
 * throws a WrongShape that names the field if not.
 */
export class WrongShape extends Error {
  override readonly name = "WrongShape";
}

/** A JSON object whose fields are checked one by one. */
export class JsonFields {
  readonly #fields: Record<string, unknown>;
  readonly #where: string;

  constructor(value: unknown, where = "it") {
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      throw new WrongShape(`${where} is not a JSON object`);
    }
    this.#fields = value as Record<string, unknown>;
    this.#where = where;
  }

  /** The field's value if `accepts` takes it. `wanted` describes it for the error. */
  get<T>(name: string, accepts: (value: unknown) => value is T, wanted: string): T {
    const value = Object.hasOwn(this.#fields, name) ? this.#fields[name] : undefined;
    if (!accepts(value)) throw new WrongShape(`field "${name}" of ${this.#where} is not ${wanted}`);
    return value;
  }

  text(name: string): string {
    return this.get(name, isText, "a text");
  }

  optionalText(name: string): string | undefined {
    return this.get(name, isOptionalText, "a text") ?? undefined;
  }

  /** A whole number from 0 to the largest that a JSON reader keeps exactly. */
  count(name: string): number {
    return this.get(name, isCount, "a whole number");
  }

  object(name: string): JsonFields {
    return new JsonFields(this.#fields[name], `"${name}"`);
  }

  /** Each element of an array field, checked by `read`. */
  list<T>(name: string, read: (value: unknown) => T): T[] {
    return this.get(name, Array.isArray, "an array").map(read);
  }
}

/** Whether a value is a whole number that is not negative and that JSON carries exactly. */
export function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

/** Whether a value is a string. */
export function isText(value: unknown): value is string {
  return typeof value === "string";
}

function isOptionalText(value: unknown): value is string | undefined | null {
  return value === undefined || value === null || typeof value === "string";
}
