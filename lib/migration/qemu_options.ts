import { takesValue as knownToTakeValue } from "../qemu/option_names.ts";

/** One of QEMU's options with its value, or a word that is none: a disk, or what stands before QEMU's own words. */
export type CommandWord =
  | { kind: "option"; word: string; name: string; value: string | undefined }
  | { kind: "other"; word: string };

/** Options whose whole value is one path, in which a comma is nothing but a comma. */
const PATH_ALONE = new Set(
  "D L bios cdrom chroot dtb fda fdb hda hdb hdc hdd initrd kernel mem-path mtdblock pflash pidfile readconfig sd"
    .split(" "),
);

/** Whether an option takes a value, as nearly all do: so do those that are not known. */
export function takesValue(name: string): boolean {
  return knownToTakeValue(name) ?? true;
}

/** Whether the whole value of an option is one path, rather than parts with commas between them. */
export function isPathAlone(name: string): boolean {
  return PATH_ALONE.has(name);
}

/**
 * Where QEMU itself stands in a guest's command: before it may stand what starts it (`setpriv`, `nice`). The first
 * word, if none looks like QEMU.
 */
export function programIndex(command: readonly string[]): number {
  return Math.max(command.findIndex(isQemu), 0);
}

/** Whether QEMU itself is seen in a guest's command, rather than something that starts it. */
export function namesQemu(command: readonly string[]): boolean {
  return command.some(isQemu);
}

function isQemu(word: string): boolean {
  return /(^|\/)(qemu-system-[^/]*|qemu-kvm|qemu|kvm)$/.test(word);
}

/** Takes a command apart. QEMU reads `--option` as `-option`. */
export function readCommand(command: readonly string[]): CommandWord[] {
  const program = programIndex(command);
  const words: CommandWord[] = command.slice(0, program + 1).map((word) => ({ kind: "other", word }));
  for (let index = program + 1; index < command.length; index++) {
    const word = command[index]!;
    const name = /^--?([^-].*)$/s.exec(word)?.[1];
    if (name === undefined) words.push({ kind: "other", word });
    else words.push({ kind: "option", word, name, value: takesValue(name) ? command[++index] : undefined });
  }
  return words;
}

/** Puts a command together again. */
export function writeCommand(words: readonly CommandWord[]): string[] {
  return words.flatMap((each) =>
    each.kind === "other" || each.value === undefined ? [each.word] : [each.word, each.value]
  );
}

/** A part of an option's value between two commas; qemu(1) doubles a comma that is meant as one. */
export interface ValuePart {
  /** As it is written. */
  text: string;
  /** With its `=`; empty for a part that has none. */
  key: string;
  /** What follows, with commas as they are meant. */
  value: string;
}

/** Takes the value of an option apart. Joined with commas, the parts' texts are the whole again. */
export function valueParts(text: string): ValuePart[] {
  const comma = "\0"; // stands for a doubled comma; no word of a command holds it
  return text.replaceAll(",,", comma).split(",").map((part) => {
    const key = /^[A-Za-z0-9_.:-]+=/.exec(part)?.[0] ?? "";
    return {
      text: part.replaceAll(comma, ",,"),
      key,
      value: part.slice(key.length).replaceAll(comma, ","),
    };
  });
}
