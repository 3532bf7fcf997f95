import type { FlatValue } from "./json_options.ts";

/** Options of a node of QEMU's block layer, flat as in its `QDict`: those of a child have its name and a dot in front. */
export class BlockOptions {
  readonly #values: Map<string, FlatValue>;

  constructor(values: Iterable<readonly [string, FlatValue]> = []) {
    this.#values = new Map(values);
  }

  get size(): number {
    return this.#values.size;
  }

  names(): string[] {
    return [...this.#values.keys()];
  }

  has(name: string): boolean {
    return this.#values.has(name);
  }

  /** The value if it is a text. */
  text(name: string): string | undefined {
    return this.#values.get(name) ?? undefined;
  }

  set(name: string, value: FlatValue): void {
    this.#values.set(name, value);
  }

  /** Sets what has no value yet. */
  default(name: string, value: FlatValue): void {
    if (!this.#values.has(name)) this.#values.set(name, value);
  }

  /** The value, null for JSON's null; it is gone from here then. */
  take(name: string): FlatValue | undefined {
    const value = this.#values.get(name);
    this.#values.delete(name);
    return value;
  }

  /** The options of a child; they are gone from here then. */
  takeChild(name: string): BlockOptions {
    const prefix = `${name}.`;
    const inside = [...this.#values].filter(([each]) => each.startsWith(prefix));
    for (const [each] of inside) this.#values.delete(each);
    return new BlockOptions(inside.map(([each, value]) => [each.slice(prefix.length), value]));
  }

  copy(): BlockOptions {
    return new BlockOptions(this.#values);
  }
}
