import assert from "node:assert/strict";
import { Browser } from "./support/browser.ts";
import { ContractAgent } from "./support/contract_agent.ts";
import { opened } from "./support/page_scene.ts";
import { guestOn, seesConnection, seesEvent, wasQuiet, words } from "./support/status_page.ts";
import { toldGuest } from "./support/told_guests.ts";
import { until } from "./support/until.ts";

Deno.test("events are there from before, come live, and are not told twice after an interruption", async () => {
  await using agent = ContractAgent.start();
  for (let count = 1; count <= 60; count++) agent.tell("lock-granted", `event number ${count}.`);
  await using browser = await Browser.open();
  const visit = await browser.visit(agent.url);
  const log = visit.page.getByRole("log", { name: "Recent events" });
  await log.getByText("event number 60.").waitFor();
  assert.equal(await log.getByRole("listitem").count(), 50);
  await until("later events are read out", async () => await log.getAttribute("aria-live") === "polite");

  await seesEvent(visit, /Guest started.*web1 has started/s, () => {
    agent.guests = [toldGuest("web1")];
    agent.tell("guest-started", "web1 has started");
  });
  await guestOn(visit, "web1").waitFor();
  assert.match(
    await words(log.getByRole("listitem").first()),
    /^Guest started \d\d:\d\d:\d\d web1 has started$/,
  );

  agent.withholdStreams();
  agent.cutStreams();
  await seesConnection(visit, "Reconnecting…");
  await seesEvent(visit, "missed in between", () => {
    agent.tell("lock-refused", "missed in between");
    agent.allowStreams();
  });
  await seesConnection(visit, "Live");
  assert.equal(await log.getByRole("listitem").count(), 52);
  wasQuiet(visit);
});

Deno.test("a refused event stream is asked for again, and what it tells once more is not shown once more", async () => {
  await using scene = await opened();
  const { agent, visit } = scene;
  const log = visit.page.getByRole("log", { name: "Recent events" });
  await seesEvent(visit, "before the refusal", () => agent.tell("lock-granted", "before the refusal"));
  agent.refusedStreams = 1;
  agent.cutStreams();
  await seesConnection(visit, "Cannot reach the agent");
  await seesEvent(visit, "after the refusal", () => agent.tell("lock-granted", "after the refusal"));
  await seesConnection(visit, "Live");
  assert.equal(await log.getByRole("listitem").count(), 2);
  assert.deepEqual(visit.refusals, [`503 ${agent.url}/v1/events?last=50`]);
});

Deno.test("many events at once lead to few readings of the guests", async () => {
  await using scene = await opened();
  const { agent, visit } = scene;
  const before = agent.readings;
  for (let count = 1; count <= 500; count++) agent.tell("lock-granted", `event number ${count}.`);
  agent.guests = [toldGuest("last")];
  agent.tell("guest-started", "the last one has started");
  await guestOn(visit, "last").waitFor();
  await visit.page.getByText("the last one has started").waitFor();
  assert.ok(agent.readings - before <= 25, `${agent.readings - before} readings`);
  assert.equal(await visit.page.getByRole("log").getByRole("listitem").count(), 200);
});

Deno.test("an agent that is gone is told, with the age of what is shown, and found again when it is back", async () => {
  await using scene = await opened();
  const { agent, visit } = scene;
  const banner = visit.page.getByRole("banner");
  await banner.getByText(/as of \d\d:\d\d:\d\d, just now/).waitFor();
  await agent.stop();
  await seesConnection(visit, "Cannot reach the agent");
  await visit.page.getByText("what you see may be out of date").waitFor();
  await banner.getByText(/as of \d\d:\d\d:\d\d, \d+ s ago/).waitFor();
  await guestOn(visit, "web1").waitFor();

  agent.guests = [toldGuest("after")];
  agent.serve();
  await seesConnection(visit, "Live");
  await guestOn(visit, "after").waitFor();
  await guestOn(visit, "web1").waitFor({ state: "detached" });
  assert.equal(await visit.page.getByText("out of date").count(), 0);
  const others = visit.complaints.filter((text) =>
    !/net::ERR_(CONNECTION|INCOMPLETE|EMPTY|SOCKET)/.test(text)
  );
  assert.deepEqual(others, []);
  assert.deepEqual(visit.foreignRequests, []);
});

Deno.test("what the agent could not find out is told", async () => {
  await using scene = await opened();
  scene.agent.error = { code: "io", message: "cannot read the lockspace" };
  scene.agent.tell("agent-started", "again");
  await scene.visit.page.getByText("The agent could not read everything: cannot read the lockspace")
    .waitFor();
});
