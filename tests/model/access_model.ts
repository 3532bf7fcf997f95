import type { Access, GuestName, ResourceName, Wish } from "./operations.ts";

/** What may be granted beside what: the table of the README, written down once more. */
const GOES_WITH: Record<Access, readonly Access[]> = {
  exclusive: [],
  shared: ["shared", "readonly"],
  readonly: ["shared", "readonly"],
};

/** How a lock file is flocked. */
export type Mode = "exclusive" | "shared";

/** A key's identity text: what the model calls it. */
export type Key = string;

/** What is behind the names of a sequence: each resource's keys, and each guest's lease on itself. */
export interface Names {
  keysOf(resource: ResourceName): readonly Key[];
  leaseOf(guest: GuestName): Key;
}

/** A process that has lock files of a guest open. */
export interface ModelCarrier {
  kind: "guest" | "holder";
  /** Not known until the program has started it. */
  pid: number | undefined;
  lives: boolean;
  /** The keys it was given, as they were asked for, as far as the guest's record tells it. */
  open: Map<Key, Access>;
  /** Those that it has flocked. */
  held: Set<Key>;
}

/** A guest whose process lives. */
export interface ModelGuest {
  name: GuestName;
  pid: number;
  state: "running" | "paused" | "lock-lost";
  resources: Wish[];
  carriers: ModelCarrier[];
  /** What a pause gave up, with the generations of then. */
  givenUp: Map<Key, { access: Access; generation: number }>;
  /** The generation that each key had when this guest got it. */
  granted: Map<Key, number>;
}

/** Who has what, by the operations alone: the access table, the guests that live, and every key's generation. */
export class AccessModel {
  readonly guests = new Map<GuestName, ModelGuest>();
  readonly generations = new Map<Key, number>();
  /** Guests that have had a key since the beginning. */
  readonly had = new Map<Key, Set<GuestName>>();

  constructor(readonly names: Names) {}

  generation(key: Key): number {
    return this.generations.get(key) ?? 0;
  }

  /** How a key is held by each guest that holds it. */
  holdersOf(key: Key): Map<GuestName, Access> {
    const holders = new Map<GuestName, Access>();
    for (const { name, carriers } of this.guests.values()) {
      for (const { held, open } of carriers) {
        if (held.has(key)) holders.set(name, stronger(open.get(key)!, holders.get(name)));
      }
    }
    return holders;
  }

  /** Guests that live and were given a key, but do not hold it: killing a holder took it from them. */
  losersOf(key: Key): GuestName[] {
    const holders = this.holdersOf(key);
    return [...this.guests.values()].filter((guest) => this.namesKey(guest, key) && !holders.has(guest.name))
      .map(({ name }) => name);
  }

  private namesKey(guest: ModelGuest, key: Key): boolean {
    return this.names.leaseOf(guest.name) === key ||
      guest.resources.some(({ resource }) => this.names.keysOf(resource).includes(key));
  }

  /** The guests in the way of an access to a key. */
  blockersOf(key: Key, asked: Access): GuestName[] {
    return [...this.holdersOf(key)].filter(([, access]) => !GOES_WITH[access].includes(asked))
      .map(([name]) => name);
  }

  isHeldBy(guest: ModelGuest, key: Key): boolean {
    return guest.carriers.some(({ held }) => held.has(key));
  }

  /** Whether a guest holds a resource with all its keys. */
  holds(guest: ModelGuest, resource: ResourceName): boolean {
    return this.names.keysOf(resource).every((key) => this.isHeldBy(guest, key));
  }

  /** Resources, and the lease on itself, that a guest should hold and does not. What a pause gave up is not lost. */
  lost(guest: ModelGuest): string[] {
    const isLost = (keys: readonly Key[]) =>
      keys.some((key) => !guest.givenUp.has(key) && !this.isHeldBy(guest, key));
    return [
      ...(isLost([this.names.leaseOf(guest.name)]) ? ["its lease"] : []),
      ...guest.resources.map(({ resource }) => resource)
        .filter((resource) => isLost(this.names.keysOf(resource))),
    ];
  }

  /** What a guest asks for, key by key; undefined when it asks for one thing in two ways. */
  plan(wishes: readonly Wish[]): Map<Key, Access> | undefined {
    const plan = new Map<Key, Wish>();
    for (const wish of wishes) {
      for (const key of this.names.keysOf(wish.resource)) {
        const earlier = plan.get(key);
        if (earlier === undefined) plan.set(key, wish);
        else if (!mayBothBeAsked(earlier, wish)) return undefined;
      }
    }
    return new Map([...plan].map(([key, { access }]) => [key, access]));
  }

  /** Keys of a plan that somebody stands in the way of, with those guests. */
  conflicts(plan: ReadonlyMap<Key, Access>): Map<Key, GuestName[]> {
    const found = [...plan].map(([key, access]) => [key, this.blockersOf(key, access)] as const);
    return new Map(found.filter(([, guests]) => guests.length > 0));
  }

  /** Counts a grant, and whoever got it. */
  count(plan: ReadonlyMap<Key, Access>, name: GuestName, guest?: ModelGuest): void {
    for (const [key, access] of plan) {
      if (access === "exclusive") this.generations.set(key, this.generation(key) + 1);
      this.had.set(key, (this.had.get(key) ?? new Set()).add(name));
      guest?.granted.set(key, this.generation(key));
    }
  }

  /** The keys that a guest needs no more once some of its resources have left. */
  keysLeaving(guest: ModelGuest, leaving: readonly Wish[]): Set<Key> {
    const staying = guest.resources.filter((wish) => !leaving.includes(wish));
    const needed = new Set(staying.flatMap(({ resource }) => this.names.keysOf(resource)));
    const keys = leaving.flatMap(({ resource }) => this.names.keysOf(resource));
    return new Set(keys.filter((key) => !needed.has(key)));
  }
}

function stronger(one: Access, other: Access | undefined): Access {
  return other === "exclusive" ? other : one;
}

/** One guest may say the same twice, and it may have a disk under two names if it does not write it alone. */
function mayBothBeAsked(one: Wish, other: Wish): boolean {
  if (one.resource === other.resource) return one.access === other.access;
  return GOES_WITH[one.access].includes(other.access);
}

/** The flock that stands for an access. */
export function modeOf(access: Access): Mode {
  return access === "exclusive" ? "exclusive" : "shared";
}
