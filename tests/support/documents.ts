import { dirname, join, normalize } from "node:path";
import { ROOT } from "../../scripts/project.ts";

/** All documents, by their paths from the project's folder. */
export function documents(): string[] {
  const docs = Array.from(Deno.readDirSync(join(ROOT, "docs")), ({ name }) => `docs/${name}`);
  return ["README.md", "CHANGELOG.md", ...docs.filter((path) => path.endsWith(".md")).sort()];
}

export function textOf(document: string): string {
  return Deno.readTextFileSync(join(ROOT, document));
}

/** A fenced block of code, and the document that it is in. */
export interface Fenced {
  document: string;
  /** The line on which its code begins. */
  line: number;
  code: string;
}

/** All blocks of a language. */
export function fencedBlocks(document: string, language: string): Fenced[] {
  const lines = textOf(document).split("\n");
  return lines.flatMap((line, at): Fenced[] => {
    const [, indent] = /^( *)```(\w+)$/.exec(line) ?? [];
    if (indent === undefined || line.trim() !== `\`\`\`${language}`) return [];
    const end = lines.indexOf(`${indent}\`\`\``, at + 1);
    const code = lines.slice(at + 1, end).map((each) => each.slice(indent.length)).join("\n");
    return [{ document, line: at + 2, code: `${code}\n` }];
  });
}

/** A document without its blocks of code. */
export function prose(document: string): string {
  return textOf(document).replaceAll(/^( *)```\w*\n[^]*?^\1```$/gm, "");
}

/** What stands below a heading, down to the next one of the same or a higher level. @throws when there is no such heading */
export function section(document: string, heading: string): string {
  const lines = textOf(document).split("\n");
  const headings = headingLines(lines);
  const start = headings.find((at) => lines[at] === heading);
  if (start === undefined) throw new Error(`${document} has no heading "${heading}"`);
  const level = heading.indexOf(" ");
  const end = headings.find((at) => at > start && lines[at]!.indexOf(" ") <= level);
  return lines.slice(start + 1, end).join("\n");
}

/** Where headings are; a `#` in a block of code is none. */
function headingLines(lines: readonly string[]): number[] {
  let isCode = false;
  return lines.flatMap((line, at) => {
    if (/^ *```/.test(line)) isCode = !isCode;
    return !isCode && /^#+ /.test(line) ? [at] : [];
  });
}

/** The rows of all tables in a text, without their heads; each cell as it is written. */
export function tableRows(text: string): string[][] {
  const lines = text.split("\n").map((line) => line.trim());
  return lines.flatMap((line, at): string[][] => {
    const isRow = line.startsWith("|") && !isRuler(line) && !isRuler(lines[at + 1] ?? "");
    return isRow ? [line.slice(1, -1).split(/(?<!\\)\|/).map((cell) => cell.trim())] : [];
  });
}

function isRuler(line: string): boolean {
  return /^\|(-+\|)+$/.test(line);
}

/** What stands in backticks. */
export function quoted(text: string): string[] {
  return Array.from(text.matchAll(/`([^`]+)`/g), ([, word]) => word!);
}

/** A link to another place of the project. */
export interface Link {
  document: string;
  target: string;
  /** The file that it leads to, from the project's folder, and the anchor in it. */
  file: string;
  anchor: string | undefined;
}

export function ownLinks(document: string): Link[] {
  return Array.from(prose(document).matchAll(/\]\(([^)\s]+)\)/g), ([, target]) => target!)
    .filter((target) => !/^[a-z]+:/.test(target))
    .map((target) => {
      const [path = "", anchor] = target.split("#");
      const file = path === "" ? document : normalize(join(dirname(document), path));
      return { document, target, file, anchor };
    });
}

/** The anchors that GitHub makes of headings: lower case, words joined by dashes, everything else left out. */
export function anchors(document: string): string[] {
  return Array.from(
    prose(document).matchAll(/^#+ (.+)$/gm),
    ([, heading]) => heading!.toLowerCase().replaceAll(/[^\p{L}\p{N} _-]/gu, "").replaceAll(" ", "-"),
  );
}
