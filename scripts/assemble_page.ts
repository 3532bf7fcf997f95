import { join } from "node:path";
import { Failure, runScript } from "./failure.ts";
import { ROOT } from "./project.ts";

/** Where the parts of the page are. */
const PARTS = join(ROOT, "lib", "agent", "page");

/** The page's style, the general before the particular. */
const STYLES = ["base.css", "guests.css", "events.css", "widths.css"];

/** The modules of the page's script, each after those that it imports. */
const MODULES = [
  "words.js",
  "elements.js",
  "holders.js",
  "guest_list.js",
  "lost_locks.js",
  "event_list.js",
  "connection.js",
  "main.js",
];

/** The status page as one document: page.html with the style and the script in it. */
export async function assemblePage(): Promise<string> {
  const part = (name: string) => Deno.readTextFile(join(PARTS, name));
  const modules = await Promise.all(MODULES.map(async (name) => asPartOfScript(name, await part(name))));
  const styles = await Promise.all(STYLES.map(part));
  const styled = filled(await part("page.html"), "<style>", styles.join("\n"), "</style>");
  return filled(styled, '<script type="module">', modules.join("\n"), "</script>");
}

/**
 * A module as a part of one script in which all of them share their names: without its imports, and with nothing
 * exported. The browser refuses the whole script if two modules declare the same name.
 */
function asPartOfScript(name: string, code: string): string {
  const own = /^import \{[^}]*\} from "\.\/([a-z_]+\.js)";\n/gm;
  for (const [, imported] of code.matchAll(own)) {
    if (MODULES.indexOf(imported!) < MODULES.indexOf(name)) continue;
    throw new Failure(`${name} imports ${imported}, which comes later among MODULES`);
  }
  const body = code.replaceAll(own, "").replaceAll(/^export (?=(async )?(function|const|class) )/gm, "");
  if (/^(import|export)\b/m.test(body)) throw new Failure(`${name} imports or exports in another form`);
  return body.trim() + "\n";
}

/** The page with a text between two tags that have nothing between them. */
function filled(page: string, open: string, text: string, close: string): string {
  const pieces = page.split(open + close);
  if (pieces.length !== 2) throw new Failure(`page.html must have ${open}${close} once`);
  if (text.includes("</")) throw new Failure(`"</" in what goes between ${open} and ${close} may end it`);
  return pieces.join(`${open}\n${text}${close}`);
}

/**
 * The module that holds the page, as text. Importing HTML as text would do without it, but Deno 2.7 knows that only
 * behind a flag.
 */
export async function pageModule(): Promise<string> {
  const escaped = (await assemblePage()).replaceAll(/[\\`]|\$\{/g, "\\$&");
  return `/** The status page; made from lib/agent/page/ by: deno task page */\nexport const PAGE = \`${escaped}\`;\n`;
}

/** Where the module lives. */
export const PAGE_MODULE = join(ROOT, "lib", "agent", "page_text.ts");

async function main(): Promise<number> {
  await Deno.writeTextFile(PAGE_MODULE, await pageModule());
  return 0;
}

if (import.meta.main) await runScript("assemble_page", main);
