import assert from "node:assert/strict";
import { descriptorsOf, giveBackSlots, type HeldSlot } from "../lib/lockspace/acquire_keys.ts";
import { initLockspace, type Lockspace } from "../lib/lockspace/lockspace.ts";
import { slotPath, tryLockSlot } from "../lib/lockspace/slot.ts";
import { ownDescriptorNumbers } from "../lib/process/descriptor_numbers.ts";
import { descriptorTarget } from "../lib/process/descriptors.ts";

const KEY = "0123456789abcdef".repeat(4);

function shared(lockspace: Lockspace): HeldSlot {
  const result = tryLockSlot(lockspace, KEY, "a", "shared");
  assert.equal(result.outcome, "granted");
  return { key: KEY, slot: "a", file: (result as Extract<typeof result, { outcome: "granted" }>).file };
}

Deno.test("two guests' locks on one lock file are each known by a descriptor of its own", () => {
  const directory = Deno.realPathSync(Deno.makeTempDirSync({ prefix: "lockvisor-test-" }));
  try {
    const { lockspace } = initLockspace(`${directory}/lockspace`, Deno.uid() ?? 0);
    const path = slotPath(lockspace, KEY, "a");
    const before = Deno.openSync("/dev/null");
    const first = shared(lockspace);
    const [firstNumber] = descriptorsOf(lockspace, [first]);
    before.close(); // the second one gets its number, which is lower than the first one's
    const second = shared(lockspace);
    const [secondNumber] = descriptorsOf(lockspace, [second]);
    assert.notEqual(secondNumber, firstNumber);

    giveBackSlots([first]);
    assert.notEqual(descriptorTarget("self", firstNumber!), path);
    assert.equal(descriptorTarget("self", secondNumber!), path);
    const third = shared(lockspace);
    const [thirdNumber] = descriptorsOf(lockspace, [third]);
    assert.notEqual(thirdNumber, secondNumber);
    giveBackSlots([second, third]);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});

Deno.test("a descriptor is found wherever it lies among thousands", () => {
  const directory = Deno.realPathSync(Deno.makeTempDirSync({ prefix: "lockvisor-test-" }));
  const others: Deno.FsFile[] = [];
  const open = (count: number) => {
    for (let number = 0; number < count; number++) others.push(Deno.openSync("/dev/null"));
  };
  try {
    const paths = ["one", "two", "three"].map((name) => `${directory}/${name}`);
    for (const path of paths) {
      others.push(Deno.openSync(path, { write: true, create: true }));
      open(1000);
    }
    for (const free of [1500, 2500, 500]) others[free]!.close();
    const numbers = ownDescriptorNumbers(paths);
    assert.deepEqual(numbers.map((number) => descriptorTarget("self", number)), paths);
    assert.throws(() => ownDescriptorNumbers([...paths, `${directory}/none`]), /none is not to be found/);
    assert.throws(() => ownDescriptorNumbers(paths, new Set(numbers)), /one is not to be found/);
  } finally {
    for (const file of others) {
      try {
        file.close();
      } catch { /* closed before */ }
    }
    Deno.removeSync(directory, { recursive: true });
  }
});
