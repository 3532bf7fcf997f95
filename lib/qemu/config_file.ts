import type { Parameter } from "./option_string.ts";

/** A section of a configuration file of QEMU: `[drive "id"]` and its lines. */
export interface ConfigSection {
  group: string;
  id: string | undefined;
  parameters: Parameter[];
}

/**
 * Reads what `-readconfig` names, as QEMU's `qemu_config_foreach`: sections, `name = "value"`, comments with `#`.
 * @returns the sections, or what is wrong
 */
export function parseConfigFile(text: string): ConfigSection[] | string {
  const sections: ConfigSection[] = [];
  for (const [index, line] of text.split("\n").entries()) {
    if (line === "" || line.startsWith("#") || line.trim() === "") continue;
    const [, group, id] = /^\[([^\]\s]+)(?:\s+"([^"]*)")?\s*\]/.exec(line) ?? [];
    if (group !== undefined) {
      sections.push({ group, id, parameters: [] });
      continue;
    }
    const [, name, value] = /^\s*(\S+)\s*=\s*"([^"]*)"/.exec(line) ?? [];
    const section = sections.at(-1);
    if (name === undefined || section === undefined) return `line ${index + 1} is not understood`;
    section.parameters.push([name, value!]);
  }
  return sections;
}
