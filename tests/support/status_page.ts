import assert from "node:assert/strict";
import type { Locator } from "playwright-core";
import type { Browser, Visit } from "./browser.ts";
import { lowContrast, overflow, pageColours, painted } from "./page_probes.js";
import { until } from "./until.ts";

/**
 * What a person must see on the status page, whatever agent serves it: an agent's test starts guests, gives their
 * description and the page's address, and makes something happen.
 */
export interface ShownGuest {
  name: string;
  state: string;
  pid: number;
  /** Text of each disk and lease, in the order in which they were given; with the names of all that have it locked. */
  resources: { name: string; access: string; lockedBy: string[] }[];
}

/** The part of the page that tells of a guest. */
export function guestOn({ page }: Visit, name: string): Locator {
  return page.getByRole("article", { name, exact: true });
}

/** The line at the top that tells whether what is shown is so now. */
export async function seesConnection({ page }: Visit, words: string): Promise<void> {
  await page.getByRole("banner").getByRole("status").filter({ hasText: words }).waitFor();
}

/** Sees a guest, with its facts and all that it has. */
export async function seesGuest(visit: Visit, guest: ShownGuest): Promise<void> {
  const part = guestOn(visit, guest.name);
  await until(`${guest.name} is ${guest.state}`, async () => (await words(part)).includes(guest.state));
  const text = await words(part);
  assert.ok(text.includes(`PID ${guest.pid} Since `), text);
  const items = await part.getByRole("list").getByRole("listitem").all();
  assert.equal(items.length, guest.resources.length, text);
  for (const [at, { name, access, lockedBy }] of guest.resources.entries()) {
    const item = await words(items[at]!);
    assert.ok(item.includes(` ${name} ${access} Locked by ${lockedBy.join(", ")}`), item);
  }
}

/** Sees an event that comes while the page is open. @param happen makes it happen */
export async function seesEvent(
  { page }: Visit,
  text: string | RegExp,
  happen: () => void | Promise<void>,
): Promise<void> {
  const line = page.getByRole("log", { name: "Recent events" }).getByRole("listitem").filter({
    hasText: text,
  });
  assert.equal(await line.count(), 0, "it stands there before it has happened");
  await happen();
  await line.first().waitFor();
}

/** A browser without a word of complaint, and a page that asks nobody else for anything. */
export function wasQuiet({ complaints, foreignRequests, refusals }: Visit): void {
  assert.deepEqual({ complaints, foreignRequests, refusals }, {
    complaints: [],
    foreignRequests: [],
    refusals: [],
  });
}

/** Fits into a phone's width, with nothing that is cut off or has to be scrolled to. */
export async function fitsPhone(browser: Browser, url: string): Promise<void> {
  const visit = await browser.visit(url, { width: 360, height: 740 });
  await seesConnection(visit, "Live");
  await visit.page.locator("#guest-list[aria-busy=false]").waitFor({ state: "attached" });
  assert.deepEqual(await visit.page.evaluate(overflow), { pixels: 0, out: [] });
  wasQuiet(visit);
  await visit.page.close();
}

/** Can be read in the light and in the dark: contrast AA (WCAG 2.2) of every text, and colours that differ. */
export async function canBeRead(browser: Browser, url: string): Promise<void> {
  const colours = [];
  for (const scheme of ["light", "dark"] as const) {
    const visit = await browser.visit(url, { scheme });
    await seesConnection(visit, "Live");
    await visit.page.locator("#guest-list[aria-busy=false]").waitFor({ state: "attached" });
    const { looked, low } = await visit.page.evaluate(lowContrast, 4.5);
    assert.deepEqual(low, [], scheme);
    assert.ok(looked > 10, `only ${looked} texts in ${scheme}`);
    colours.push(await visit.page.evaluate(pageColours));
    wasQuiet(visit);
    await visit.page.close();
  }
  assert.notEqual(colours[0]!.color, colours[1]!.color);
  assert.notEqual(colours[0]!.backgroundColor, colours[1]!.backgroundColor);
}

/** The text that can be seen, after scrolling to it where that is needed, with every gap as one space. */
export async function words(part: Locator): Promise<string> {
  await part.scrollIntoViewIfNeeded();
  await part.page().evaluate(painted);
  return (await part.innerText()).replaceAll(/\s+/g, " ").trim();
}
