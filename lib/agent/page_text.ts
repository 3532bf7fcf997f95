/** The status page; made from lib/agent/page/ by: deno task page */
export const PAGE = `<!DOCTYPE html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <meta name="color-scheme" content="light dark">
    <title>lockvisor</title>
    <link
      rel="icon"
      href="data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Crect width='16' height='16' rx='4' fill='%232b5c8f'/%3E%3Cpath d='M5.5 7V5.5a2.5 2.5 0 0 1 5 0V7' fill='none' stroke='%23fff' stroke-width='1.5'/%3E%3Crect x='4' y='7' width='8' height='5.5' rx='1.2' fill='%23fff'/%3E%3C/svg%3E"
    >
    <style>
:root {
  color-scheme: light dark;
  --ground: #f4f6f8;
  --surface: #ffffff;
  --text: #19212c;
  --muted: #55606f;
  --line: #dde2e8;
  --accent: #2b5c8f;
  --good: #17663a;
  --good-ground: #e4f3ea;
  --warn: #7a4a00;
  --warn-ground: #fbefd6;
  --bad: #a1151b;
  --bad-ground: #fdecec;
  --info: #1f4f95;
  --info-ground: #e7effb;
  --plain: #4a5563;
  --plain-ground: #eceff3;
  --mono: ui-monospace, "SF Mono", "Cascadia Mono", "Liberation Mono", "DejaVu Sans Mono", monospace;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", "DejaVu Sans",
    sans-serif;
}

@media (prefers-color-scheme: dark) {
  :root {
    --ground: #10151b;
    --surface: #19202a;
    --text: #e4e9ef;
    --muted: #a0acbb;
    --line: #2c3643;
    --accent: #8fbdf0;
    --good: #83d8a5;
    --good-ground: #153325;
    --warn: #eec069;
    --warn-ground: #382b12;
    --bad: #ffa19c;
    --bad-ground: #44191c;
    --info: #9dc4ff;
    --info-ground: #182c4a;
    --plain: #b4bfcc;
    --plain-ground: #28313d;
  }
}

* {
  box-sizing: border-box;
}

[hidden],
.sprite {
  display: none !important;
}

body {
  margin: 0 auto;
  max-width: 88rem;
  padding: 0 1.5rem;
  background: var(--ground);
  color: var(--text);
  overflow-wrap: anywhere;
}

h1,
h2,
h3,
p,
ul,
ol,
dl,
dd,
pre {
  margin: 0;
}

ul,
ol {
  padding: 0;
  list-style: none;
}

/* No marker, no number: hiding 900 of 1000 numbered items took Chromium 150 two seconds, and without 15 ms. */
li {
  display: block;
}

code,
pre,
.path {
  font-family: var(--mono);
  font-size: 0.9em;
}

a {
  color: var(--accent);
}

:focus-visible {
  outline: 2px solid var(--accent);
  outline-offset: 2px;
}

section:focus {
  outline: none;
}

.skip {
  position: absolute;
  left: -100vw;
  background: var(--surface);
  padding: 0.5rem 1rem;
}

.skip:focus {
  left: 1rem;
  top: 0.5rem;
  z-index: 1;
}

.icon {
  width: 1em;
  height: 1em;
  flex: none;
}

/* Top */

header {
  display: flex;
  flex-wrap: wrap;
  align-items: center;
  gap: 0.5rem 1.5rem;
  padding: 1.1rem 0 1rem;
}

h1 {
  display: flex;
  align-items: center;
  gap: 0.5rem;
  font-size: 1.3rem;
  font-weight: 650;
  letter-spacing: -0.01em;
}

h1 .icon {
  color: var(--accent);
}

nav {
  display: none;
  gap: 1rem;
}

.connection {
  display: flex;
  flex-wrap: wrap;
  align-items: baseline;
  gap: 0 0.6rem;
  margin-left: auto;
  color: var(--muted);
  font-variant-numeric: tabular-nums;
}

#connection-state {
  display: inline-flex;
  align-items: center;
  gap: 0.45rem;
  color: var(--text);
  font-weight: 600;
}

#connection-state::before {
  content: "";
  width: 0.6rem;
  height: 0.6rem;
  border-radius: 50%;
  background: var(--muted);
}

[data-state="live"] #connection-state::before {
  background: var(--good);
}

[data-state="reconnecting"] #connection-state::before {
  background: var(--warn);
}

[data-state="unreachable"] #connection-state {
  color: var(--bad);
}

[data-state="unreachable"] #connection-state::before {
  background: var(--bad);
}

.alarm,
.notice {
  margin-bottom: 1rem;
  border-radius: 10px;
  padding: 0.8rem 1.1rem;
}

.alarm {
  border: 1px solid var(--bad);
  background: var(--bad-ground);
}

.alarm h2 {
  display: flex;
  align-items: center;
  gap: 0.5rem;
  color: var(--bad);
}

.alarm li {
  margin-top: 0.6rem;
}

.alarm .name,
.holder {
  font-weight: 600;
}

.alarm .advice {
  font-size: 0.92em;
}

.notice {
  border: 1px solid var(--warn);
  background: var(--warn-ground);
}

.notice.unreachable {
  border-color: var(--bad);
  background: var(--bad-ground);
}

/* Guests */

h2 {
  font-size: 1.05rem;
  font-weight: 650;
}

.bar {
  display: flex;
  flex-wrap: wrap;
  align-items: center;
  gap: 0.4rem 1rem;
  min-height: 2.4rem;
  margin-bottom: 0.6rem;
}

.summary {
  display: flex;
  flex-wrap: wrap;
  gap: 0 0.9rem;
  color: var(--muted);
}

.count[data-tone="bad"] {
  color: var(--bad);
  font-weight: 600;
}

.filter {
  display: flex;
  align-items: center;
  gap: 0.5rem;
  margin-left: auto;
}

.filter label {
  color: var(--muted);
}

input {
  width: 16rem;
  max-width: 100%;
  min-width: 0;
  border: 1px solid var(--muted);
  border-radius: 8px;
  padding: 0.35rem 0.7rem;
  background: var(--surface);
  color: inherit;
  font: inherit;
}

input::placeholder {
  color: var(--muted);
  opacity: 1;
}

.matches:not(:empty) {
  margin-bottom: 0.6rem;
  color: var(--muted);
}

.placeholder {
  display: grid;
  gap: 0.6rem;
  border: 1px dashed var(--line);
  border-radius: 10px;
  padding: 1.5rem;
  color: var(--muted);
}

.placeholder strong,
.placeholder code {
  color: var(--text);
}

.placeholder pre {
  overflow-x: auto;
  border-radius: 8px;
  padding: 0.8rem 1rem;
  background: var(--plain-ground);
}

.guests > li {
  margin-bottom: 0.6rem;
  /* A thousand guests: what is out of sight is not laid out. */
  content-visibility: auto;
  contain-intrinsic-size: auto 6.5rem;
}

.guest {
  border: 1px solid var(--line);
  border-radius: 10px;
  background: var(--surface);
  padding: 0.8rem 1.1rem;
}

.guest[data-tone="bad"] {
  border-color: var(--bad);
}

.guest-head {
  display: flex;
  flex-wrap: wrap;
  align-items: center;
  gap: 0.2rem 0.7rem;
}

h3 {
  min-width: 0;
  font-size: 1.05rem;
  font-weight: 600;
}

.badge {
  flex: none;
  border-radius: 99px;
  padding: 0.05rem 0.65rem;
  background: var(--plain-ground);
  color: var(--plain);
  font-size: 0.85rem;
  font-weight: 600;
}

.badge[data-tone="good"] {
  background: var(--good-ground);
  color: var(--good);
}

.badge[data-tone="warn"] {
  background: var(--warn-ground);
  color: var(--warn);
}

.badge[data-tone="bad"] {
  background: var(--bad-ground);
  color: var(--bad);
}

.badge[data-tone="info"] {
  background: var(--info-ground);
  color: var(--info);
}

.facts {
  display: flex;
  flex-wrap: wrap;
  gap: 0 1.1rem;
  margin-left: auto;
  color: var(--muted);
  font-size: 0.92em;
  font-variant-numeric: tabular-nums;
}

.facts div {
  display: flex;
  gap: 0.35rem;
}

.facts dd {
  color: var(--text);
}

.resources {
  margin-top: 0.5rem;
}

.resource {
  display: grid;
  grid-template-columns: minmax(0, 1fr) 5.5rem minmax(0, 0.8fr);
  gap: 0 1rem;
  border-top: 1px solid var(--line);
  padding: 0.4rem 0;
}

.resource:last-child {
  padding-bottom: 0;
}

.type,
.access,
.none {
  color: var(--muted);
}

.what {
  display: grid;
  grid-template-columns: 3.4rem minmax(0, 1fr);
  align-items: baseline;
}

.lock {
  display: flex;
  gap: 0.5rem;
  color: var(--muted);
}

.lock .icon {
  margin-top: 0.25em;
}

.lock[data-lock="held"] .icon {
  color: var(--good);
}

.lock .holder,
.lock .names {
  color: var(--text);
}

.lock[data-lock="lost"] {
  color: var(--bad);
  font-weight: 600;
}

details {
  display: inline;
}

summary {
  display: inline;
  color: var(--accent);
  cursor: pointer;
  text-decoration: underline;
}

.names {
  max-height: 14rem;
  overflow-y: auto;
}

/* Events */

.events {
  border: 1px solid var(--line);
  border-radius: 10px;
  background: var(--surface);
}

.events > li {
  padding: 0.6rem 1.1rem 0.7rem;
}

.events > li + li {
  border-top: 1px solid var(--line);
}

.event-head {
  display: flex;
  align-items: center;
  justify-content: space-between;
  gap: 0.6rem;
  margin-bottom: 0.15rem;
}

.events time {
  color: var(--muted);
  font-size: 0.9em;
  font-variant-numeric: tabular-nums;
}

footer {
  padding: 1.5rem 0 2rem;
  color: var(--muted);
  font-size: 0.92em;
}

/* From wide screens to phones */

@media (width >= 64rem) {
  .columns {
    display: grid;
    grid-template-columns: minmax(0, 1fr) 22rem;
    gap: 1.8rem;
    align-items: start;
  }

  #events {
    position: sticky;
    top: 0.6rem;
  }

  .events {
    max-height: calc(100vh - 5rem);
    overflow-y: auto;
  }
}

@media (width < 64rem) {
  nav {
    display: flex;
  }

  #events {
    margin-top: 1.5rem;
  }
}

@media (width < 40rem) {
  body {
    padding: 0 1rem;
  }

  .connection,
  .facts {
    margin-left: 0;
  }

  .connection,
  .facts,
  .filter {
    width: 100%;
  }

  .filter {
    margin-left: 0;
  }

  .filter input {
    flex: 1;
  }

  .guest,
  .events > li {
    padding-left: 0.9rem;
    padding-right: 0.9rem;
  }

  .resource {
    grid-template-columns: auto minmax(0, 1fr);
    gap: 0 1.2rem;
  }

  .what {
    grid-column: 1 / -1;
  }
}
</style>
  </head>
  <body>
    <svg class="sprite" aria-hidden="true" focusable="false">
      <symbol id="closed" viewBox="0 0 16 16">
        <path d="M5 7V5a3 3 0 0 1 6 0v2" fill="none" stroke="currentColor" stroke-width="1.6" />
        <rect x="3" y="7" width="10" height="7" rx="1.6" fill="currentColor" />
      </symbol>
      <symbol id="open" viewBox="0 0 16 16">
        <path
          d="M5 7V4.6a3 3 0 0 1 5.8-1.1"
          fill="none"
          stroke="currentColor"
          stroke-width="1.6"
          stroke-linecap="round"
        />
        <rect x="3.7" y="7.7" width="8.6" height="5.6" rx="1" fill="none" stroke="currentColor"
          stroke-width="1.4" />
      </symbol>
      <symbol id="question" viewBox="0 0 16 16">
        <circle cx="8" cy="8" r="6.3" fill="none" stroke="currentColor" stroke-width="1.4" />
        <path
          d="M6.2 6.4a1.8 1.8 0 1 1 2.6 1.6c-.6.3-.8.6-.8 1.2M8 11v.6"
          fill="none"
          stroke="currentColor"
          stroke-width="1.4"
          stroke-linecap="round"
        />
      </symbol>
      <symbol id="alert" viewBox="0 0 16 16">
        <path
          d="M8 2 14.5 13.5H1.5Z"
          fill="none"
          stroke="currentColor"
          stroke-width="1.5"
          stroke-linejoin="round"
        />
        <path d="M8 6.2v3.4M8 11.2v.6" stroke="currentColor" stroke-width="1.5" stroke-linecap="round" />
      </symbol>
    </svg>

    <a class="skip" href="#guests">Skip to the guests</a>
    <a class="skip" href="#events">Skip to the events</a>

    <header>
      <h1>
        <svg class="icon" aria-hidden="true"><use href="#closed" /></svg>
        lockvisor
      </h1>
      <nav aria-label="On this page">
        <a href="#guests">Guests</a>
        <a href="#events">Events</a>
      </nav>
      <p class="connection" id="connection" data-state="connecting">
        <span role="status" id="connection-state">Connecting…</span>
        <span id="age"></span>
      </p>
    </header>

    <main>
      <noscript>
        <p
          class="notice">This page needs JavaScript. <code>lockvisor status</code> shows the same in a terminal.</p>
      </noscript>
      <div role="alert" id="lost"></div>
      <div role="status" id="notices"></div>

      <div class="columns">
        <section id="guests" aria-labelledby="guests-title" tabindex="-1">
          <div class="bar">
            <h2 id="guests-title">Guests</h2>
            <p class="summary" id="summary"></p>
            <p class="filter" id="filter-line">
              <label for="filter">Filter</label>
              <input
                id="filter"
                type="search"
                autocomplete="off"
                spellcheck="false"
                placeholder="Name, disk, state, pid"
                aria-describedby="matches"
              >
            </p>
          </div>
          <p class="matches" id="matches" role="status"></p>
          <p class="placeholder" id="loading">Reading the guests…</p>
          <div class="placeholder" id="empty" hidden>
            <p><strong>No guest is under lock on this host.</strong></p>
            <p>Start one:</p>
            <pre tabindex="0"><code>lockvisor run --name vm1 --disk disk.qcow2 -- \\
  qemu-system-x86_64 -drive file=disk.qcow2,if=virtio …</code></pre>
            <p>It appears here at once. A guest that runs already comes under lock with <code>lockvisor adopt</code>.</p>
          </div>
          <ul class="guests" id="guest-list" role="list" aria-labelledby="guests-title"></ul>
        </section>

        <section id="events" aria-labelledby="events-title" tabindex="-1">
          <div class="bar">
            <h2 id="events-title">Recent events</h2>
          </div>
          <p class="placeholder" id="no-events">Nothing has happened yet.</p>
          <ol
            class="events"
            id="event-list"
            role="log"
            aria-labelledby="events-title"
            aria-live="off"
            aria-relevant="additions"
            tabindex="0"
            hidden
          ></ol>
        </section>
      </div>
    </main>

    <footer>
      <p>
        <span id="version">lockvisor</span>. This page only shows; <code>lockvisor status</code> shows the same in a
        terminal.
      </p>
    </footer>
    <script type="module">
/**
 * The text with characters made visible that would steer how other text is shown: control characters, and those that
 * change the direction of writing. A guest's name may hold any of them.
 */
function printable(text) {
  // deno-lint-ignore no-control-regex
  const steering = /[\\u0000-\\u001f\\u007f-\\u009f\\u061c\\u200e\\u200f\\u2028\\u2029\\u202a-\\u202e\\u2066-\\u2069]/g;
  return String(text).replace(
    steering,
    (character) => \`\\\\u\${character.codePointAt(0).toString(16).padStart(4, "0")}\`,
  );
}

/** \`1 guest\`, \`2 guests\`. */
function counted(number, one, many = \`\${one}s\`) {
  return \`\${number} \${number === 1 ? one : many}\`;
}

/** How long ago something was, from milliseconds. */
function ageText(milliseconds) {
  const seconds = Math.max(0, Math.floor(milliseconds / 1000));
  if (seconds < 2) return "just now";
  if (seconds < 120) return \`\${seconds} s ago\`;
  if (seconds < 7200) return \`\${Math.floor(seconds / 60)} min ago\`;
  if (seconds < 172_800) return \`\${Math.floor(seconds / 3600)} h ago\`;
  return \`\${Math.floor(seconds / 86_400)} days ago\`;
}

const CLOCK = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const DAY_AND_CLOCK = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

/** A time as people on this machine write it; the day is left out when it is today. What is no time stays as it is. */
function timeText(iso, now = new Date()) {
  const time = new Date(iso);
  if (iso === null || Number.isNaN(time.getTime())) return printable(iso ?? "unknown");
  return (time.toDateString() === now.toDateString() ? CLOCK : DAY_AND_CLOCK).format(time);
}

/** The words for a guest's state, and how much they should worry. */
const STATES = {
  starting: { words: "Starting", tone: "info" },
  running: { words: "Running", tone: "good" },
  paused: { words: "Paused", tone: "warn" },
  "migrating-out": { words: "Migrating out", tone: "info" },
  incoming: { words: "Incoming", tone: "info" },
  "lock-lost": { words: "Lock lost", tone: "bad" },
  stopped: { words: "Stopped", tone: "plain" },
};

/** The same for a type of event; types that are not known yet are shown by their name. */
const EVENTS = {
  "agent-started": { words: "Agent started", tone: "plain" },
  "guest-found": { words: "Guest found", tone: "plain" },
  "guest-started": { words: "Guest started", tone: "good" },
  "guest-ended": { words: "Guest ended", tone: "plain" },
  "guest-paused": { words: "Guest paused", tone: "warn" },
  "guest-resumed": { words: "Guest resumed", tone: "good" },
  "guest-migrating": { words: "Guest migrating", tone: "info" },
  "guest-migrated": { words: "Guest migrated", tone: "good" },
  "migration-cancelled": { words: "Migration cancelled", tone: "warn" },
  "guest-mended": { words: "Guest mended", tone: "warn" },
  "lock-granted": { words: "Lock granted", tone: "good" },
  "lock-released": { words: "Lock released", tone: "plain" },
  "lock-changed": { words: "Lock changed", tone: "plain" },
  "lock-refused": { words: "Lock refused", tone: "warn" },
  "lock-conflict": { words: "Lock conflict", tone: "warn" },
  "lock-lost": { words: "Lock lost", tone: "bad" },
  "lock-regained": { words: "Lock regained", tone: "good" },
  "lock-broken": { words: "Lock broken", tone: "bad" },
  "action-taken": { words: "Action taken", tone: "info" },
  "hook-failed": { words: "Hook failed", tone: "bad" },
  "problem": { words: "Problem", tone: "bad" },
  "agent-stopping": { words: "Agent stopping", tone: "warn" },
  "events-missed": { words: "Events missed", tone: "warn" },
};

/** What stands for a state or a type that is not in its table. */
function wordsFor(table, name) {
  return Object.hasOwn(table, name) ? table[name] : { words: printable(name), tone: "plain" };
}

/** The element of the page with an id. */
const the = (id) => document.getElementById(id);

/**
 * An element with attributes and content. Content is elements, or strings that become text and never markup: that is
 * the only way by which names get into this page.
 */
function element(tag, attributes = {}, ...content) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...content);
  return made;
}

/** A name or message that somebody else chose; its direction of writing stays its own matter. */
function foreign(text, attributes = {}) {
  return element("bdi", attributes, text);
}

/** A time in words, with the exact one for machines and as a tooltip. */
function timeElement(iso, words) {
  return element("time", iso === null ? {} : { datetime: iso, title: iso }, words);
}

/** One of the pictures in the page's sprite; the words beside it carry the meaning. */
function icon(name) {
  const space = "http://www.w3.org/2000/svg";
  const picture = document.createElementNS(space, "svg");
  picture.setAttribute("class", "icon");
  picture.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(space, "use");
  use.setAttribute("href", \`#\${name}\`);
  picture.append(use);
  return picture;
}

/** Puts names in a row: all of them, the many behind a line that opens. */
function nameList(names) {
  const few = names.length <= 6 ? names : names.slice(0, 5);
  const shown = few.flatMap((name, at) => [at === 0 ? "" : ", ", foreign(name, { class: "holder" })]);
  if (few === names) return shown;
  const rest = element("details", {}, element("summary", {}, \`and \${names.length - few.length} more\`));
  rest.addEventListener("toggle", () => {
    if (rest.childElementCount > 1) return;
    const items = names.slice(few.length).map((name) => element("li", {}, foreign(name)));
    rest.append(element("ul", { class: "names" }, ...items));
  });
  return [...shown, " ", rest];
}

/** Lets the browser paint and take input before more is done. */
function breathe() {
  return new Promise((resolve) => setTimeout(resolve));
}

const BY_NAME = new Intl.Collator(undefined, { numeric: true });

/**
 * The guests as they are shown: those that lost a lock first, then by name, with who has each of their resources.
 * Two guests mean the same resource when they share one of its keys, whatever they call it.
 */
function guestViews(guests) {
  const holdersOf = holderFinder(guests);
  const taken = new Map();
  const views = guests.map((guest) => {
    const identity = \`\${guest.uuid}/\${guest.pid}\`;
    const count = taken.get(identity) ?? 0;
    taken.set(identity, count + 1);
    return guestView(guest, \`\${identity}/\${count}\`, holdersOf);
  });
  return views.sort((one, other) =>
    Number(other.lost !== null) - Number(one.lost !== null) || BY_NAME.compare(one.name, other.name) ||
    BY_NAME.compare(one.key, other.key)
  );
}

function guestView(guest, key, holdersOf) {
  const lost = hasLostLocks(guest);
  const resources = guest.resources.map((resource) => ({
    type: resource.type,
    name: printable(resource.name),
    access: resource.access,
    ...lockView(resource, guest, holdersOf(resource.keys)),
  }));
  const state = wordsFor(STATES, guest.state);
  const view = {
    key,
    uuid: printable(guest.uuid),
    name: printable(guest.name),
    state,
    pid: guest.pid === null ? "none" : String(guest.pid),
    since: guest.since,
    plugin: printable(guest.plugin),
    locks: guest.locks,
    resources,
    lost: lost ? resources.filter(({ lock }) => lock === "lost") : null,
  };
  const words = [view.name, view.uuid, view.pid, view.plugin, state.words, guest.state];
  view.searched = words.concat(resources.map(({ name }) => name)).join("\\n").toLowerCase();
  // Equal exactly when the guest looks the same; the holders' text is shared by all that have the same resource.
  const looks = { ...view, resources: resources.map((each) => ({ ...each, holders: undefined })), lost };
  view.signature = [JSON.stringify(looks), ...resources.map(({ holders }) => holders.text)];
  return view;
}

/** A guest that has ended lost nothing, and one that is just starting has not got it yet. */
function hasLostLocks({ state, locks }) {
  if (state === "lock-lost") return true;
  return locks.lost > 0 && state !== "stopped" && state !== "starting";
}

/** What is to be said of the lock on a resource: a kind, words, and the guests that have it. */
function lockView(resource, guest, holders) {
  if (resource.unprotected?.access) {
    return {
      lock: "none",
      words: "Written with a lock for reading only, since somebody else had it",
      holders,
    };
  }
  if (resource.locked === true) return { lock: "held", words: "Locked by", holders };
  if (resource.locked === null) return { lock: "unknown", words: "Not known whether it is locked", holders };
  if (resource.unprotected) {
    return { lock: "none", words: "Without its lock, which somebody else had", holders };
  }
  if (resource.keys.length === 0) return { lock: "none", words: "No lock is taken for it", holders };
  if (hasLostLocks(guest)) return { lock: "lost", words: "Lock lost", holders };
  if (guest.state === "paused") return { lock: "none", words: "Given up while paused", holders };
  return { lock: "none", words: "Not locked", holders };
}

/** Finds the names of all guests that have one of some keys; each set of keys is looked up once. */
function holderFinder(guests) {
  const byKey = new Map();
  for (const guest of guests) {
    for (const { keys, locked } of guest.resources) {
      if (locked !== true) continue;
      for (const key of keys) {
        if (!byKey.has(key)) byKey.set(key, new Set());
        byKey.get(key).add(guest);
      }
    }
  }
  const found = new Map();
  return (keys) => {
    const together = keys.join();
    if (!found.has(together)) {
      const holders = new Set(keys.flatMap((key) => [...byKey.get(key) ?? []]));
      const names = Array.from(holders, ({ name }) => printable(name)).sort(BY_NAME.compare);
      found.set(together, { names, text: names.join("\\n") });
    }
    return found.get(together);
  };
}

/** How many guests there are of each state, in the order of STATES, as \`[words, count, tone]\`. */
function stateCounts(views) {
  const counts = new Map(Object.values(STATES).map(({ words, tone }) => [words, { words, tone, count: 0 }]));
  for (const { state } of views) {
    if (!counts.has(state.words)) counts.set(state.words, { ...state, count: 0 });
    counts.get(state.words).count++;
  }
  return [...counts.values()].filter(({ count }) => count > 0);
}

/** Whether a guest has every word of what is in the filter field. */
function isMatch(view, filter) {
  return filter.toLowerCase().split(/\\s+/).every((word) => view.searched.includes(word));
}

/** How long the page may be busy at a stretch, in milliseconds. */
const STRETCH_MS = 12;

/** The picture for each kind of lock, by what holders.js calls it. */
const LOCK_ICONS = { held: "closed", lost: "alert", none: "open", unknown: "question" };

/** What is in the list: the view and its element, by the view's key. */
const shown = new Map();

/** Brings the list up to date, a few guests at a time; elements of guests that look the same as before are kept. */
async function showGuests(views) {
  const list = the("guest-list");
  list.setAttribute("aria-busy", "true");
  the("loading").hidden = true;
  the("empty").hidden = views.length > 0;
  the("filter-line").hidden = views.length === 0;
  showSummary(views);
  let started = performance.now();
  const stay = new Set(views.map(({ key }) => key));
  for (const [key, { item }] of shown) {
    if (stay.has(key)) continue;
    item.remove();
    shown.delete(key);
  }
  let next = list.firstElementChild;
  for (const view of views) {
    if (performance.now() - started > STRETCH_MS) {
      await breathe();
      started = performance.now();
    }
    const item = itemOf(view);
    if (item === next) next = next.nextElementSibling;
    else list.insertBefore(item, next);
  }
  list.setAttribute("aria-busy", "false");
  applyFilter();
}

function itemOf(view) {
  const before = shown.get(view.key);
  const item = before?.item ?? element("li");
  const isSame = before !== undefined && before.view.signature.length === view.signature.length &&
    view.signature.every((part, at) => part === before.view.signature[at]);
  if (!isSame) item.replaceChildren(card(view));
  if (before === undefined) item.hidden = !isMatch(view, the("filter").value.trim());
  shown.set(view.key, { view, item });
  return item;
}

function card(view) {
  const { name, state, lost, resources, locks } = view;
  const facts = [
    ["PID", view.pid],
    ["Since", timeElement(view.since, timeText(view.since))],
    ["Locks", \`\${locks.held} of \${locks.total}\`],
  ];
  if (view.plugin !== "sync-manager") facts.push(["Plugin", foreign(view.plugin)]);
  return element(
    "article",
    { class: "guest", "data-tone": lost === null ? state.tone : "bad", "aria-label": name },
    element(
      "div",
      { class: "guest-head" },
      element("h3", {}, foreign(name, { title: \`UUID \${view.uuid}\` })),
      element("span", { class: "badge", "data-tone": state.tone }, state.words),
      element(
        "dl",
        { class: "facts" },
        ...facts.map(([term, value]) =>
          element("div", {}, element("dt", {}, term), element("dd", {}, value))
        ),
      ),
    ),
    resources.length === 0
      ? element("p", { class: "none" }, "No disks and no leases")
      : element("ul", { class: "resources", role: "list" }, ...resources.map(resourceItem)),
  );
}

function resourceItem({ type, name, access, lock, words, holders }) {
  const status = element("span", { class: "lock", "data-lock": lock });
  status.append(icon(LOCK_ICONS[lock]));
  const text = element("span", {}, words);
  if (lock === "held") text.append(" ", ...nameList(holders.names));
  else if (holders.names.length > 0) text.append("; locked by ", ...nameList(holders.names));
  status.append(text);
  return element(
    "li",
    { class: "resource" },
    element(
      "span",
      { class: "what" },
      element("span", { class: "type" }, type),
      " ",
      foreign(name, { class: "path" }),
    ),
    " ",
    element("span", { class: "access" }, access),
    " ",
    status,
  );
}

function showSummary(views) {
  const counts = stateCounts(views).map(({ words, tone, count }) =>
    element("span", { class: "count", "data-tone": tone }, \`\${count} \${words.toLowerCase()}\`)
  );
  const total = views.length === 0
    ? []
    : [element("span", { class: "count" }, counted(views.length, "guest"))];
  the("summary").replaceChildren(...total, ...counts);
}

/** Hides the guests that the filter field does not mean. */
function applyFilter() {
  const filter = the("filter").value.trim();
  let matches = 0;
  for (const { view, item } of shown.values()) {
    const hidden = !isMatch(view, filter);
    if (item.hidden !== hidden) item.hidden = hidden;
    if (!hidden) matches++;
  }
  const words = matches === 0
    ? \`No guest matches. Clear the filter to see all \${shown.size}.\`
    : \`\${matches} of \${counted(shown.size, "guest")}\`;
  const text = filter === "" || shown.size === 0 ? "" : words;
  if (the("matches").textContent !== text) the("matches").textContent = text;
}

/** More would bury the page; the guests themselves stand at the top of the list. */
const SHOWN_AT_MOST = 20;

let before = "";

/** Says at the top which guest lost what. Nothing is touched while that stays the same, so nothing is read out again. */
function showLostLocks(views) {
  const losing = views.filter(({ lost }) => lost !== null);
  const now = JSON.stringify(losing.map(({ signature }) => signature));
  if (now === before) return;
  before = now;
  if (losing.length === 0) return the("lost").replaceChildren();
  const items = losing.slice(0, SHOWN_AT_MOST).map(lossItem);
  if (losing.length > SHOWN_AT_MOST) {
    items.push(
      element("li", {}, \`and \${counted(losing.length - SHOWN_AT_MOST, "more guest")}: see the list below.\`),
    );
  }
  const title = losing.length === 1 ? "A guest has lost locks" : \`\${losing.length} guests have lost locks\`;
  the("lost").replaceChildren(
    element(
      "section",
      { class: "alarm", "aria-labelledby": "lost-title" },
      element("h2", { id: "lost-title" }, icon("alert"), title),
      element("ul", { role: "list" }, ...items),
    ),
  );
}

function lossItem({ name, uuid, pid, lost, locks }) {
  const sentence = element("p", {}, foreign(name, { class: "name" }), \` (pid \${pid}) has lost \`);
  if (lost.length === 0) sentence.append(\`\${locks.lost} of its \${counted(locks.total, "lock")}.\`);
  else sentence.append(lost.length === 1 ? "its lock on " : "its locks on ");
  lost.forEach(({ type, name, holders }, at) => {
    if (at > 0) sentence.append(", ");
    sentence.append(\`\${type} \`, foreign(name, { class: "path" }));
    if (holders.names.length > 0) sentence.append(", which is locked now by ", ...nameList(holders.names));
  });
  if (lost.length > 0) sentence.append(".");
  const advice = element("p", { class: "advice" }, "Locks that nobody else took in between come back with ");
  advice.append(element("code", {}, \`lockvisor attach \${/^[0-9a-f-]{36}$/i.test(uuid) ? uuid : "GUEST"}\`));
  return element("li", {}, sentence, advice);
}

/** As many as are kept on the page. */
const KEPT = 200;

const known = new Set();
let waiting = [];

/** Takes an event; those that come together are shown together, newest first. One that is known already is dropped. */
function takeEvent(event) {
  // An agent that was started again may count from the beginning.
  const identity = \`\${event.id} \${event.time}\`;
  if (known.has(identity)) return;
  known.add(identity);
  waiting.push(event);
  if (waiting.length === 1) setTimeout(showWaiting, 50);
}

function showWaiting() {
  const list = the("event-list");
  list.prepend(...waiting.reverse().map(eventItem));
  waiting = [];
  while (list.childElementCount > KEPT) list.lastElementChild.remove();
  for (const identity of known) {
    if (known.size <= 4 * KEPT) break;
    known.delete(identity);
  }
  list.hidden = false;
  the("no-events").hidden = true;
  // What had happened before the page was opened is not news to be read out.
  if (list.getAttribute("aria-live") === "off") {
    requestAnimationFrame(() => list.setAttribute("aria-live", "polite"));
  }
}

function eventItem({ type, time, message }) {
  const { words, tone } = wordsFor(EVENTS, type);
  return element(
    "li",
    { "data-tone": tone },
    element(
      "p",
      { class: "event-head" },
      element("span", { class: "badge", "data-tone": tone }, words),
      " ",
      timeElement(time, timeText(time)),
    ),
    element("p", { class: "message" }, foreign(printable(message))),
  );
}

/** How long to wait before another attempt that the browser does not make by itself, in milliseconds. */
const AGAIN_MS = 3000;

/**
 * What is known of the way to the agent. \`stream\` is the event stream: \`lost\` when it has just ended, \`failed\` when
 * another attempt did not succeed either.
 */
const link = { stream: "opening", reading: "none yet", readAt: null };

/** Shows the state of the connection, in words that are read out when they change. */
function showConnection() {
  const [state, words] = connectionState(link);
  const line = the("connection");
  if (line.dataset.state !== state) {
    line.dataset.state = state;
    the("connection-state").textContent = words;
    the("notices").querySelector(".unreachable")?.remove();
    if (state === "unreachable") {
      const notice = document.createElement("p");
      notice.className = "notice unreachable";
      notice.textContent = link.readAt === null
        ? "The agent does not answer. The locks do not depend on it: the guests hold them themselves."
        : "The agent does not answer: what you see may be out of date. The locks do not depend on it: the guests " +
          "hold them themselves.";
      the("notices").append(notice);
    }
  }
  const age = link.readAt === null
    ? ""
    : \`as of \${timeText(new Date(link.readAt).toISOString())}, \${ageText(Date.now() - link.readAt)}\`;
  if (the("age").textContent !== age) the("age").textContent = age;
}

/** The state and its words, as a function of what is known. */
function connectionState({ stream, reading }) {
  if (reading === "failed" || stream === "failed") return ["unreachable", "Cannot reach the agent"];
  if (stream === "lost") return ["reconnecting", "Reconnecting…"];
  if (stream === "opening" || reading === "none yet") return ["connecting", "Connecting…"];
  return ["live", "Live"];
}

/** Notes how reading the guests went. */
function noteReading(outcome) {
  link.reading = outcome;
  if (outcome === "done") link.readAt = Date.now();
  showConnection();
}

/**
 * Follows the event stream for as long as the page is open.
 * @param types the types of events to listen to
 * @param onEvent is given each event
 * @param onOpen is called whenever the stream is there, at first or again
 */
function followEvents(types, { onEvent, onOpen }) {
  const source = new EventSource("/v1/events?last=50");
  for (const type of types) source.addEventListener(type, ({ data }) => onEvent(JSON.parse(data)));
  source.addEventListener("open", () => {
    link.stream = "open";
    showConnection();
    onOpen();
  });
  source.addEventListener("error", () => {
    link.stream = link.stream === "open" ? "lost" : "failed";
    showConnection();
    // The browser tries again by itself, except after an answer that is no event stream.
    if (source.readyState !== EventSource.CLOSED) return;
    setTimeout(() => followEvents(types, { onEvent, onOpen }), AGAIN_MS);
  });
}

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
    if (!response.ok) throw new Error(\`status \${response.status}\`);
    const { guests, error } = await response.json();
    const views = guestViews(guests);
    noteReading("done");
    showLostLocks(views);
    showTrouble(error);
    showTitle(views);
    await showGuests(views);
    return "done";
  } catch (error) {
    console.info(\`cannot show the guests: \${error.message}\`);
    noteReading("failed");
    return "failed";
  }
}

/** What the agent itself could not find out. */
function showTrouble(error) {
  const notices = the("notices");
  const text = error === undefined ? "" : \`The agent could not read everything: \${printable(error.message)}\`;
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
  const words = losing > 0 ? \`⚠ \${counted(losing, "guest")} lost locks\` : counted(views.length, "guest");
  document.title = \`\${words} · lockvisor\`;
}

async function showVersion() {
  try {
    const { version } = await (await fetch("/healthz", { cache: "no-store" })).json();
    the("version").textContent = \`lockvisor \${printable(version)}\`;
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
</script>
  </body>
</html>
`;
