import fc from "fast-check";

/** The guests of a sequence. */
export const GUESTS = ["A", "B", "C"] as const;
export type GuestName = (typeof GUESTS)[number];

/** The accesses, as this test knows them: nothing here is taken from the program's own table. */
export type Access = "exclusive" | "shared" | "readonly";

/** One disk under three names, two disks with one name each, and a lease. */
export const RESOURCES = ["disk0", "disk0-hard", "disk0-symbolic", "disk1", "disk2", "cluster:db"] as const;
export type ResourceName = (typeof RESOURCES)[number];

/** A resource as a guest asks for it. */
export interface Wish {
  resource: ResourceName;
  access: Access;
}

/** What is done to the guests, one after the other. Each is defined in every state; many are refused. */
export type Operation =
  /** A new process becomes the guest: by `run`, or by `adopt` when it runs already. */
  | { kind: "start"; guest: GuestName; by: "run" | "adopt"; wishes: Wish[] }
  /** `adopt` once more, of the process that is this guest or another one. */
  | { kind: "adopt-again"; guest: GuestName; process: GuestName; wishes: Wish[] }
  | { kind: "acquire"; guest: GuestName; wishes: Wish[] }
  | { kind: "release"; guest: GuestName; resources: ResourceName[] }
  | { kind: "pause"; guest: GuestName; locks: "kept" | "released" }
  | { kind: "resume"; guest: GuestName; changes: "refuse" | "accept" }
  | { kind: "stop"; guest: GuestName }
  | { kind: "wait"; guest: GuestName }
  /** SIGKILL for the guest's process. */
  | { kind: "kill"; guest: GuestName }
  /** SIGKILL for one of the processes beside it that hold its locks. */
  | { kind: "kill-holder"; guest: GuestName; which: number }
  | { kind: "attach" }
  /** The runtime directory is removed, then `attach`. */
  | { kind: "wipe-and-attach" }
  | { kind: "gc" }
  | { kind: "check"; wishes: Wish[] }
  | { kind: "inspect"; resource: ResourceName }
  | { kind: "break"; resource: ResourceName };

const guest = fc.constantFrom(...GUESTS);
const access = fc.oneof(
  { weight: 3, arbitrary: fc.constant<Access>("exclusive") },
  { weight: 2, arbitrary: fc.constant<Access>("shared") },
  { weight: 1, arbitrary: fc.constant<Access>("readonly") },
);
const resource = fc.constantFrom(...RESOURCES);
const wish: fc.Arbitrary<Wish> = fc.record({ resource, access });
const wishes = (minLength: number) => fc.array(wish, { minLength, maxLength: 3, size: "max" });

function startsOf(runIn: number): fc.Arbitrary<Extract<Operation, { kind: "start" }>> {
  const by = fc.integer({ min: 1, max: 100 }).map((number) =>
    number <= runIn ? "run" as const : "adopt" as const
  );
  return fc.record({ kind: fc.constant("start" as const), guest, by, wishes: wishes(0) });
}

function operationFor(runIn: number): fc.Arbitrary<Operation> {
  return fc.oneof(
    { weight: 8, arbitrary: startsOf(runIn) },
    {
      weight: 1,
      arbitrary: fc.record({
        kind: fc.constant("adopt-again" as const),
        guest,
        process: guest,
        wishes: wishes(0),
      }),
    },
    { weight: 9, arbitrary: fc.record({ kind: fc.constant("acquire" as const), guest, wishes: wishes(1) }) },
    {
      weight: 7,
      arbitrary: fc.record({
        kind: fc.constant("release" as const),
        guest,
        resources: fc.array(resource, { minLength: 1, maxLength: 2, size: "max" }),
      }),
    },
    {
      weight: 5,
      arbitrary: fc.record({
        kind: fc.constant("pause" as const),
        guest,
        locks: fc.constantFrom("kept" as const, "released" as const, "released" as const),
      }),
    },
    {
      weight: 6,
      arbitrary: fc.record({
        kind: fc.constant("resume" as const),
        guest,
        changes: fc.constantFrom("refuse" as const, "refuse" as const, "accept" as const),
      }),
    },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant("stop" as const), guest }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant("wait" as const), guest }) },
    { weight: 3, arbitrary: fc.record({ kind: fc.constant("kill" as const), guest }) },
    {
      weight: 3,
      arbitrary: fc.record({ kind: fc.constant("kill-holder" as const), guest, which: fc.nat(7) }),
    },
    { weight: 4, arbitrary: fc.constant<Operation>({ kind: "attach" }) },
    { weight: 2, arbitrary: fc.constant<Operation>({ kind: "wipe-and-attach" }) },
    { weight: 2, arbitrary: fc.constant<Operation>({ kind: "gc" }) },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant("check" as const), wishes: wishes(1) }) },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant("inspect" as const), resource }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant("break" as const), resource }) },
  );
}

/**
 * Sequences of operations. Each goes about a few guests and resources only, so that they get into each other's way, and
 * begins with a guest or two.
 * @param runIn how many starts of a hundred are by `run`, the others by `adopt`
 */
export function sequences(runIn: number): fc.Arbitrary<Operation[]> {
  const operation = operationFor(runIn);
  const starts = startsOf(runIn);
  return fc.tuple(
    fc.subarray([...GUESTS], { minLength: 1 }),
    fc.subarray([...RESOURCES], { minLength: 1, maxLength: 3 }),
    fc.array(starts, { maxLength: 2, size: "max" }),
    fc.array(operation, { minLength: 3, maxLength: 13, size: "max" }),
  ).map(([guests, resources, first, then]) => {
    const among = <Value>(all: readonly Value[], few: readonly Value[]) => (value: Value) =>
      few[all.indexOf(value) % few.length]!;
    const [guest, resource] = [among(GUESTS, guests), among(RESOURCES, resources)];
    return [...first, ...then].map((each) => narrowed(each, guest, resource));
  });
}

/** The same operation on one of the few guests and resources of its sequence. */
function narrowed(
  operation: Operation,
  guest: (name: GuestName) => GuestName,
  resource: (name: ResourceName) => ResourceName,
): Operation {
  const wishes = (asked: readonly Wish[]) =>
    asked.map((wish) => ({ ...wish, resource: resource(wish.resource) }));
  return {
    ...operation,
    ..."guest" in operation ? { guest: guest(operation.guest) } : {},
    ..."process" in operation ? { process: guest(operation.process) } : {},
    ..."resource" in operation ? { resource: resource(operation.resource) } : {},
    ..."resources" in operation ? { resources: operation.resources.map(resource) } : {},
    ..."wishes" in operation ? { wishes: wishes(operation.wishes) } : {},
  } as Operation;
}

/** An operation in a few words, as one would type it. */
export function inWords(operation: Operation): string {
  const asked = (wishes: readonly Wish[]) => wishes.map(({ resource, access }) => `${resource}=${access}`);
  switch (operation.kind) {
    case "start":
      return [operation.by, operation.guest, ...asked(operation.wishes)].join(" ");
    case "adopt-again":
      return ["adopt", `process-of-${operation.process}`, operation.guest, ...asked(operation.wishes)].join(
        " ",
      );
    case "acquire":
      return ["acquire", operation.guest, ...asked(operation.wishes)].join(" ");
    case "release":
      return ["release", operation.guest, ...operation.resources].join(" ");
    case "pause":
      return `pause ${operation.guest}, locks ${operation.locks}`;
    case "resume":
      return `resume ${operation.guest}, changes: ${operation.changes}`;
    case "kill-holder":
      return `kill a holder of ${operation.guest} (${operation.which})`;
    case "stop":
    case "wait":
    case "kill":
      return `${operation.kind} ${operation.guest}`;
    case "check":
      return ["check", ...asked(operation.wishes)].join(" ");
    case "inspect":
    case "break":
      return `${operation.kind} ${operation.resource}`;
    case "attach":
    case "wipe-and-attach":
    case "gc":
      return operation.kind;
  }
}
