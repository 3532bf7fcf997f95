import type { CommandDefinition } from "./definition.ts";
import { secondWord } from "./parse.ts";

/** The commands of two words that begin with the same one. */
export interface CommandGroup {
  /** The first word. */
  name: string;
  members: readonly CommandDefinition[];
}

/** The first words that a command line may have: whole commands, and what several commands begin with. */
export function firstWords(commands: readonly CommandDefinition[]): { name: string; summary: string }[] {
  const groups = new Map(groupsOf(commands).map((group) => [group.name, group]));
  const words = commands.map(({ name, summary }) => {
    const group = groups.get(name.split(" ")[0]!);
    return group === undefined
      ? { name, summary }
      : { name: group.name, summary: group.members.map(secondWord).join(", ") };
  });
  return [...new Map(words.map((word) => [word.name, word])).values()];
}

/** All groups, in the order of their commands. */
export function groupsOf(commands: readonly CommandDefinition[]): CommandGroup[] {
  const groups = Map.groupBy(
    commands.filter(({ name }) => name.includes(" ")),
    ({ name }) => name.split(" ")[0]!,
  );
  return [...groups].map(([name, members]) => ({ name, members }));
}
