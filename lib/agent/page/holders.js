import { printable, STATES, wordsFor } from "./words.js";

const BY_NAME = new Intl.Collator(undefined, { numeric: true });

/**
 * The guests as they are shown: those that lost a lock first, then by name, with who has each of their resources.
 * Two guests mean the same resource when they share one of its keys, whatever they call it.
 */
export function guestViews(guests) {
  const holdersOf = holderFinder(guests);
  const taken = new Map();
  const views = guests.map((guest) => {
    const identity = `${guest.uuid}/${guest.pid}`;
    const count = taken.get(identity) ?? 0;
    taken.set(identity, count + 1);
    return guestView(guest, `${identity}/${count}`, holdersOf);
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
  view.searched = words.concat(resources.map(({ name }) => name)).join("\n").toLowerCase();
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
      found.set(together, { names, text: names.join("\n") });
    }
    return found.get(together);
  };
}

/** How many guests there are of each state, in the order of STATES, as `[words, count, tone]`. */
export function stateCounts(views) {
  const counts = new Map(Object.values(STATES).map(({ words, tone }) => [words, { words, tone, count: 0 }]));
  for (const { state } of views) {
    if (!counts.has(state.words)) counts.set(state.words, { ...state, count: 0 });
    counts.get(state.words).count++;
  }
  return [...counts.values()].filter(({ count }) => count > 0);
}

/** Whether a guest has every word of what is in the filter field. */
export function isMatch(view, filter) {
  return filter.toLowerCase().split(/\s+/).every((word) => view.searched.includes(word));
}
