import { misunderstood } from "./misunderstood.ts";
import { takesValue } from "./option_names.ts";

/** One option of a QEMU command line with its value, or an image that stands for itself. */
export type CommandWord =
  | { kind: "option"; name: string; value: string }
  | { kind: "image"; file: string };

/**
 * Takes QEMU's arguments apart as its `lookup_opt` does: one dash or two, the value is the next word whatever it looks
 * like, and a word without a dash is the image of the first disk.
 * @throws {LockvisorError} `usage` for an option that is not known: where the next one begins cannot be told
 */
export function splitCommandLine(args: readonly string[]): CommandWord[] {
  const words: CommandWord[] = [];
  for (let index = 0; index < args.length; index++) {
    const word = args[index]!;
    if (!word.startsWith("-")) {
      words.push({ kind: "image", file: word });
      continue;
    }
    const name = word.slice(word.startsWith("--") ? 2 : 1);
    const hasValue = takesValue(name);
    if (hasValue === undefined) throw misunderstood(`option ${word}`, "it is not known", "usage");
    if (hasValue && index + 1 === args.length) {
      throw misunderstood(`option ${word}`, "it has no value", "usage");
    }
    words.push({ kind: "option", name, value: hasValue ? args[++index]! : "" });
  }
  return words;
}
