import fc from "fast-check";
import {
  type Access,
  type GuestName,
  GUESTS,
  type Operation,
  type ResourceName,
  RESOURCES,
  type Wish,
} from "./operations.ts";

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
    fc.array(passageOf(operation, starts), { minLength: 2, maxLength: 11, size: "max" }),
  ).map(([guests, resources, first, passages]) => {
    const among = <Value>(all: readonly Value[], few: readonly Value[]) => (value: Value) =>
      few[all.indexOf(value) % few.length]!;
    const [guest, resource] = [among(GUESTS, guests), among(RESOURCES, resources)];
    return [...first, ...passages.flat()].map((each) => narrowed(each, guest, resource));
  });
}

/** One operation, or a few that belong together and would seldom come together by chance. */
function passageOf(
  operation: fc.Arbitrary<Operation>,
  start: fc.Arbitrary<Operation>,
): fc.Arbitrary<Operation[]> {
  const end = fc.constantFrom("kill" as const, "stop" as const);
  const few = fc.record({ guest, other: guest, wish, resource, which: fc.nat(7), end });
  return fc.oneof(
    { weight: 12, arbitrary: operation.map((each) => [each]) },
    {
      weight: 1, // somebody has a disk while its guest is paused
      arbitrary: few.map(({ guest, other, wish, end }): Operation[] => [
        { kind: "acquire", guest, wishes: [wish] },
        { kind: "pause", guest, locks: "released" },
        { kind: "start", guest: other, by: "adopt", wishes: [wish] },
        { kind: "acquire", guest: other, wishes: [wish] },
        ...(guest === other ? [] : [{ kind: end, guest: other }]),
        { kind: "resume", guest, changes: "refuse" },
      ]),
    },
    {
      weight: 1, // a disk under two names
      arbitrary: few.map(({ guest, wish, resource }): Operation[] => [
        { kind: "acquire", guest, wishes: [{ ...wish, access: "shared" }] },
        { kind: "acquire", guest, wishes: [{ resource, access: "readonly" }] },
        { kind: "release", guest, resources: [resource] },
      ]),
    },
    {
      weight: 1, // somebody has a disk while its guest has lost it
      arbitrary: fc.tuple(few, start).map(([{ guest, wish, which }, start]): Operation[] => [
        { kind: "acquire", guest, wishes: [wish] },
        { kind: "kill-holder", guest, which },
        start,
        { kind: "attach" },
      ]),
    },
    {
      weight: 1, // lock files are tidied away while their guest is paused
      arbitrary: few.map(({ guest }): Operation[] => [
        { kind: "pause", guest, locks: "released" },
        { kind: "gc" },
        { kind: "resume", guest, changes: "refuse" },
      ]),
    },
  );
}

/** The same operation on one of the few guests and resources of its sequence. */
function narrowed(
  operation: Operation,
  guest: (name: GuestName) => GuestName,
  resource: (name: ResourceName) => ResourceName,
): Operation {
  const wishes = (asked: readonly Wish[]) =>
    inOrder(asked.map((wish) => ({ ...wish, resource: resource(wish.resource) })));
  return {
    ...operation,
    ..."guest" in operation ? { guest: guest(operation.guest) } : {},
    ..."process" in operation ? { process: guest(operation.process) } : {},
    ..."resource" in operation ? { resource: resource(operation.resource) } : {},
    ..."resources" in operation ? { resources: operation.resources.map(resource) } : {},
    ..."wishes" in operation ? { wishes: wishes(operation.wishes) } : {},
  } as Operation;
}

/** As the program takes them: all disks, then all leases. */
function inOrder(wishes: readonly Wish[]): Wish[] {
  const isLease = ({ resource }: Wish) => resource.includes(":");
  return [...wishes.filter((wish) => !isLease(wish)), ...wishes.filter(isLease)];
}
