import { Browser } from "./browser.ts";
import { ContractAgent } from "./contract_agent.ts";
import { seesConnection } from "./status_page.ts";
import { toldGuest, toldResource } from "./told_guests.ts";

/** A disk that several guests have. */
export const shared = toldResource("/srv/cluster.qcow2", { access: "shared" });

/** Guests of every kind. */
export function mixedGuests() {
  return [
    toldGuest("web1", [toldResource("/srv/web1.qcow2"), shared]),
    toldGuest("web2", [{ ...shared, name: "/mnt/same-disk-elsewhere.qcow2" }]),
    toldGuest("db1", [toldResource("/srv/db1.qcow2", { locked: false }), toldResource("/srv/log.qcow2")], {
      state: "lock-lost",
      locks: { held: 3, unknown: 0, lost: 2, total: 5 },
    }),
    toldGuest("idle", [toldResource("/srv/idle.qcow2", { locked: false })], { state: "paused" }),
    toldGuest("far", [toldResource("cluster:leader", { type: "lease", locked: null })], {
      state: "migrating-out",
    }),
    toldGuest("free", [toldResource("/srv/free.qcow2", { keys: [], locked: false })], { plugin: "nop" }),
    toldGuest("new", [], { state: "starting" }),
    toldGuest("next", [], { state: "incoming" }),
    toldGuest("gone", [], { state: "stopped" }),
  ];
}

/** An agent that tells of guests, a browser, and a page in it that shows them. */
export async function opened(guests = mixedGuests()) {
  const agent = ContractAgent.start(guests);
  const browser = await Browser.open();
  const visit = await browser.visit(agent.url);
  await seesConnection(visit, "Live");
  return {
    agent,
    browser,
    visit,
    async [Symbol.asyncDispose]() {
      await browser[Symbol.asyncDispose]();
      await agent[Symbol.asyncDispose]();
    },
  };
}
