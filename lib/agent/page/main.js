import { followEvents, noteReading, showConnection } from "./connection.js";
import { the } from "./elements.js";
import { takeEvent } from "./event_list.js";
import { applyFilter, showGuests } from "./guest_list.js";
import { guestViews } from "./holders.js";
import { showLostLocks } from "./lost_locks.js";
import { counted, EVENTS, printable } from "./words.js";

/** Events come in bursts: one reading of the guests serves all of this time, in milliseconds. */
const TOGETHER_MS = 150;

/** What no event tells, as a lock that vanished while the agent was away, is seen after this time at the latest. */
const LOOK_AGAIN_MS = 30_000;

/** An agent that takes longer to answer does not answer. */
const PATIENCE_MS = 10_000;

const AFTER_FAILURE_MS = 3000;

let timer;
let dueAt = Infinity;
let isReading = false;
let isAskedAgain = false;
let lastTookMs = 0;

/** Sees to it that the guests are read within a time; what is due earlier stays. */
function readWithin(delay) {
  if (isReading) {
    isAskedAgain = true;
    return;
  }
  const at = performance.now() + delay;
  if (at >= dueAt) return;
  clearTimeout(timer);
  dueAt = at;
  timer = setTimeout(readGuests, delay);
}

async function readGuests() {
  dueAt = Infinity;
  isReading = true;
  isAskedAgain = false;
  const started = performance.now();
  const outcome = await showWhatIs();
  lastTookMs = performance.now() - started;
  isReading = false;
  if (outcome === "failed") readWithin(AFTER_FAILURE_MS);
  else readWithin(isAskedAgain ? Math.max(TOGETHER_MS, lastTookMs) : LOOK_AGAIN_MS);
}

/** Reads the guests and shows them; tells how that went. */
async function showWhatIs() {
  try {
    const response = await fetch("/v1/guests", {
      cache: "no-store",
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
    if (!response.ok) throw new Error(`status ${response.status}`);
    const { guests, error } = await response.json();
    const views = guestViews(guests);
    noteReading("done");
    showLostLocks(views);
    showTrouble(error);
    showTitle(views);
    await showGuests(views);
    return "done";
  } catch (error) {
    console.info(`cannot show the guests: ${error.message}`);
    noteReading("failed");
    return "failed";
  }
}

/** What the agent itself could not find out. */
function showTrouble(error) {
  const notices = the("notices");
  const text = error === undefined ? "" : `The agent could not read everything: ${printable(error.message)}`;
  const before = notices.querySelector(".trouble");
  if ((before?.textContent ?? "") === text) return;
  before?.remove();
  if (text === "") return;
  const notice = document.createElement("p");
  notice.className = "notice trouble";
  notice.textContent = text;
  notices.append(notice);
}

function showTitle(views) {
  const losing = views.filter(({ lost }) => lost !== null).length;
  const words = losing > 0 ? `⚠ ${counted(losing, "guest")} lost locks` : counted(views.length, "guest");
  document.title = `${words} · lockvisor`;
}

async function showVersion() {
  try {
    const { version } = await (await fetch("/healthz", { cache: "no-store" })).json();
    the("version").textContent = `lockvisor ${printable(version)}`;
  } catch { /* it is not worth a word: the connection's state says it */ }
}

the("filter").addEventListener("input", applyFilter);
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible") readWithin(0);
});
setInterval(showConnection, 1000);
followEvents(Object.keys(EVENTS), {
  onEvent(event) {
    takeEvent(event);
    readWithin(Math.max(TOGETHER_MS, lastTookMs));
  },
  onOpen() {
    readWithin(0);
    showVersion();
  },
});
readWithin(0);
