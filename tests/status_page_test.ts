import assert from "node:assert/strict";
import { statusPage } from "../lib/agent/status_page.ts";
import { PAGE_MODULE, pageModule } from "../scripts/assemble_page.ts";
import { Browser, type Visit } from "./support/browser.ts";
import { ContractAgent } from "./support/contract_agent.ts";
import { opened, shared } from "./support/page_scene.ts";
import { breakPolicy, focused, growth, noteGrowth, overflow } from "./support/page_probes.js";
import {
  canBeRead,
  fitsPhone,
  guestOn,
  seesConnection,
  seesGuest,
  wasQuiet,
  words,
} from "./support/status_page.ts";
import { toldGuest, toldResource } from "./support/told_guests.ts";
import { until } from "./support/until.ts";

function lostLocks({ page }: Visit) {
  return page.getByRole("alert");
}

Deno.test("the built-in page is what its parts make", async () => {
  assert.equal(await Deno.readTextFile(PAGE_MODULE), await pageModule(), "run: deno task page");
});

Deno.test("the page goes out with a policy that names its own script and style by their hashes", async () => {
  const { body, headers } = statusPage();
  const hash = async (tag: string) => {
    const content = new RegExp(`<${tag}[^>]*>([^]*)</${tag}>`).exec(body)![1]!;
    const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(content));
    return `'sha256-${btoa(String.fromCharCode(...new Uint8Array(digest)))}'`;
  };
  assert.deepEqual(headers, {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": `default-src 'none'; script-src ${await hash(
      "script",
    )}; style-src ${await hash(
      "style",
    )}; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
  });
});

Deno.test("in a browser the policy stops what is not the page's own", async () => {
  await using elsewhere = ContractAgent.start();
  await using scene = await opened();
  assert.deepEqual(await scene.visit.page.evaluate(breakPolicy, elsewhere.url), {
    stopped: ["connect-src", "img-src", "script-src-attr", "script-src-elem"],
    broken: false,
  });
  assert.deepEqual(elsewhere.requests, []);
  assert.ok(scene.visit.complaints.length >= 4, "so a silent browser means something in the other tests");
});

Deno.test("each guest stands there with what it has and with all who have it locked, whatever they call it", async () => {
  await using scene = await opened();
  const [web1, web2] = scene.agent.guests;
  const both = ["web1", "web2"];
  await seesGuest(scene.visit, {
    name: "web1",
    state: "Running",
    pid: web1!.pid!,
    resources: [
      { name: "/srv/web1.qcow2", access: "exclusive", lockedBy: ["web1"] },
      { name: "/srv/cluster.qcow2", access: "shared", lockedBy: both },
    ],
  });
  await seesGuest(scene.visit, {
    name: "web2",
    state: "Running",
    pid: web2!.pid!,
    resources: [{ name: "/mnt/same-disk-elsewhere.qcow2", access: "shared", lockedBy: both }],
  });
  const told: Record<string, string> = {
    db1: "Lock lost",
    idle: "Given up while paused",
    far: "Not known whether it is locked",
    free: "No lock is taken for it",
    new: "Starting",
    next: "Incoming",
    gone: "Stopped",
  };
  for (const [name, text] of Object.entries(told)) {
    assert.ok((await words(guestOn(scene.visit, name))).includes(text), name);
  }
  assert.equal(await scene.visit.page.title(), "⚠ 1 guest lost locks · lockvisor");
  wasQuiet(scene.visit);
});

Deno.test("a lost lock is an alert at the top until it is held again", async () => {
  await using scene = await opened();
  const { agent, visit } = scene;
  await lostLocks(visit).getByText("db1", { exact: true }).waitFor();
  const text = await words(lostLocks(visit));
  assert.ok(
    text.startsWith(
      `A guest has lost locks db1 (pid ${agent.guests[2]!.pid}) has lost its lock on disk /srv/db1.qcow2.`,
    ),
    text,
  );
  assert.ok(text.includes(`lockvisor attach ${agent.guests[2]!.uuid}`), text);
  const { y } = (await lostLocks(visit).boundingBox())!;
  assert.ok(y < 200, `${y} pixels from the top`);

  // Somebody else takes the disk, then two guests are without their locks.
  agent.guests.push(toldGuest("thief", [toldResource("/srv/db1.qcow2")]));
  agent.guests[0] = toldGuest("web1", [], {
    state: "lock-lost",
    locks: { held: 0, unknown: 0, lost: 1, total: 1 },
  });
  agent.tell("lock-lost", "guest web1 lost a lock");
  await lostLocks(visit).getByText("2 guests have lost locks").waitFor();
  assert.ok((await words(lostLocks(visit))).includes("/srv/db1.qcow2, which is locked now by thief."));
  assert.ok((await words(lostLocks(visit))).includes("has lost 1 of its 1 lock."));

  agent.guests = [toldGuest("web1")];
  agent.tell("lock-regained", "guest web1 has its lock again");
  await until("the alert is gone", async () => await words(lostLocks(visit)) === "");
  assert.equal(await visit.page.title(), "1 guest · lockvisor");
  wasQuiet(visit);
});

Deno.test("a pause that gives locks up, a driver without locks and an ended guest are no alarm", async () => {
  const open = [toldResource("/srv/a.qcow2", { locked: false })];
  await using scene = await opened([
    toldGuest("paused", open, { state: "paused" }),
    toldGuest("nop", [toldResource("/srv/b.qcow2", { locked: false, keys: [] })]),
    toldGuest("stopped", open, { state: "stopped", locks: { held: 0, unknown: 0, lost: 3, total: 3 } }),
    toldGuest("starting", open, { state: "starting", locks: { held: 0, unknown: 0, lost: 3, total: 3 } }),
  ]);
  await guestOn(scene.visit, "starting").waitFor();
  assert.equal(await words(lostLocks(scene.visit)), "");
});

Deno.test("hostile names are text, keep their direction to themselves, and break nothing on a phone", async () => {
  const names = [
    `<img src=x onerror="document.title='broken'">`,
    "</script><script>document.title='broken'</script>",
    `"><svg onload=document.title='broken'>`,
    "x".repeat(200),
    "\u0645\u0631\u062d\u0628\u0627",
  ];
  const reversed = "\u202egnp.exe\u202c";
  const guests = [...names, reversed].map((name) =>
    toldGuest(name, [toldResource(`/srv/${name}`, { locked: false }), shared], {
      state: "lock-lost",
      locks: { held: 0, unknown: 0, lost: 2, total: 5 },
    })
  );
  guests.push(toldGuest("holder", guests.map(({ resources }) => ({ ...resources[0]!, locked: true }))));
  await using agent = ContractAgent.start(guests);
  for (const name of names) agent.tell("guest-started", `${name} has started`);
  agent.tell("<b>type</b>", "an event of another type is left out");
  await using browser = await Browser.open();
  const visit = await browser.visit(agent.url, { width: 360, height: 740 });
  await seesConnection(visit, "Live");
  for (const name of [...names, "\\u202egnp.exe\\u202c"]) {
    await guestOn(visit, name).getByRole("heading", { name, exact: true }).waitFor();
    await guestOn(visit, name).getByText(`/srv/${name}`, { exact: true }).waitFor();
    assert.ok((await words(lostLocks(visit))).includes(`disk /srv/${name}, which is locked now by holder.`));
  }
  for (const name of names) await visit.page.getByRole("log").getByText(`${name} has started`).waitFor();
  assert.equal(await visit.page.title(), "⚠ 6 guests lost locks · lockvisor");
  assert.equal(await visit.page.locator("img, main script, main svg[onload]").count(), 0);
  assert.deepEqual(await visit.page.evaluate(overflow), { pixels: 0, out: [] });
  wasQuiet(visit);
});

Deno.test("the page fits a phone and can be read in the light and in the dark", async () => {
  await using scene = await opened();
  for (const type of ["lock-lost", "guest-started", "guest-paused", "agent-started", "action-taken"]) {
    scene.agent.tell(type, `something of type ${type}`);
  }
  scene.agent.error = { code: "io", message: "cannot read the lockspace" };
  await fitsPhone(scene.browser, scene.agent.url);
  await canBeRead(scene.browser, scene.agent.url);
  scene.agent.guests = [];
  await fitsPhone(scene.browser, scene.agent.url);
  await canBeRead(scene.browser, scene.agent.url);
});

Deno.test("without guests the page tells how to start one, and shows it when it has started", async () => {
  await using scene = await opened([]);
  const advice = scene.visit.page.getByText("lockvisor run --name vm1 --disk disk.qcow2 --");
  await advice.waitFor();
  await scene.visit.page.getByText("Nothing has happened yet").waitFor();
  assert.equal(await scene.visit.page.getByRole("searchbox").isVisible(), false);
  scene.agent.guests = [toldGuest("vm1")];
  scene.agent.tell("guest-started", "vm1 has started");
  await guestOn(scene.visit, "vm1").waitFor();
  await advice.waitFor({ state: "hidden" });
  wasQuiet(scene.visit);
});

Deno.test("a thousand guests come a few at a time, and the filter finds one of them", async () => {
  const guests = Array.from({ length: 1000 }, (_, at) => {
    const number = String(at).padStart(4, "0");
    return toldGuest(`vm${number}`, [toldResource(`/srv/disk-of-${number}.qcow2`), shared]);
  });
  await using agent = ContractAgent.start(guests);
  await using browser = await Browser.open();
  const visit = await browser.visit(agent.url, { before: noteGrowth });
  await visit.page.locator("#guest-list[aria-busy=false]").waitFor();
  const counts: number[] = await visit.page.evaluate(growth);
  assert.equal(counts.at(-1), 1000);
  assert.ok(counts.length > 2, "the browser had time for something else in between");

  // By role only once few are left: asking for roles makes the browser lay out all that is out of sight.
  const shown = visit.page.getByRole("article");
  const filter = visit.page.locator("#filter");
  await filter.pressSequentially("DISK-of-05 vm050");
  await visit.page.locator("#matches", { hasText: "10 of 1000 guests" }).waitFor();
  assert.equal(await shown.count(), 10);
  assert.equal(await shown.first().getAttribute("aria-label"), "vm0500");

  // A change of one guest leaves the others, and the filter, as they are.
  const untouched = await guestOn(visit, "vm0501").locator("h3").elementHandle();
  agent.guests[500]!.state = "paused";
  agent.tell("guest-paused", "vm0500 is paused");
  await guestOn(visit, "vm0500").getByText("Paused").waitFor();
  assert.equal(await untouched!.isVisible(), true);
  assert.equal(await shown.count(), 10);

  await filter.fill("nothing like it");
  await visit.page.getByText("No guest matches. Clear the filter to see all 1000.").waitFor();
  assert.equal(await shown.count(), 0);
  await filter.fill("vm0000");
  const holders = guestOn(visit, "vm0000").getByRole("listitem").filter({ hasText: "cluster" });
  await holders.getByText("and 995 more").press("Enter");
  await until(
    "all have their names there",
    async () => await holders.getByText(/^vm\d{4}$/).count() === 1000,
  );
  await filter.fill("");
  await until("all are there again", async () => {
    return await visit.page.locator("#guest-list > li:not([hidden])").count() === 1000;
  });
  wasQuiet(visit);
});

Deno.test("the page can be used by keyboard and by its landmarks", async () => {
  await using scene = await opened();
  const { page } = scene.visit;
  await page.keyboard.press("Tab");
  assert.deepEqual(await page.evaluate(focused), {
    id: "",
    text: "Skip to the guests",
    outline: "2px solid",
  });
  assert.ok((await page.getByText("Skip to the guests").boundingBox())!.x >= 0);
  await page.keyboard.press("Enter");
  await page.keyboard.press("Tab");
  assert.equal((await page.evaluate(focused)).id, "filter");
  await page.keyboard.type("web2");
  await page.getByText("1 of 9 guests").waitFor();
  for (const [role, count] of [["banner", 1], ["main", 1], ["contentinfo", 1]] as const) {
    assert.equal(await page.getByRole(role).count(), count, role);
  }
  for (const name of ["Guests", "Recent events"]) {
    await page.getByRole("region", { name, exact: true }).waitFor();
  }
  assert.deepEqual(await page.getByRole("heading", { level: 1 }).allInnerTexts(), ["lockvisor"]);
  const facts = guestOn(scene.visit, "web2").getByRole("term");
  assert.deepEqual(await facts.allInnerTexts(), ["PID", "Since", "Locks"]);
  await page.setViewportSize({ width: 360, height: 740 });
  await page.getByRole("navigation").getByRole("link", { name: "Events" }).click();
  await until("the events are in sight", async () => {
    const box = await page.getByRole("region", { name: "Recent events" }).boundingBox();
    return box !== null && box.y < 740;
  });
});
