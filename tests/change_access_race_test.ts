import assert from "node:assert/strict";
import { attachTo, recordOf } from "./conformance/running_guest.ts";
import { LockvisorError } from "../lib/errors.ts";
import { ManagerProcess } from "./support/manager_process.ts";
import { slotsOf } from "./support/migration_world.ts";
import { World } from "./support/world.ts";

/** How often the access changes; each time others try to get the disk. */
const CHANGES = Number(Deno.env.get("LOCKVISOR_ACCESS_CHANGES") ?? 200);

/** What a contender has told at its end; times in milliseconds. */
interface Contended {
  attempts: number;
  had: { from: number; to: number }[];
}

/** A process that tries to have some keys, as a start does. */
class Contender {
  readonly #child: Deno.ChildProcess;
  readonly #output: ReadableStreamDefaultReader<string>;
  #text = "";

  private constructor(child: Deno.ChildProcess) {
    this.#child = child;
    this.#output = child.stdout.pipeThrough(new TextDecoderStream() as TransformStream<Uint8Array, string>)
      .getReader();
  }

  /** @param pauseMs between two attempts, in milliseconds */
  static async start(
    { lockspace }: World,
    mode: "exclusive" | "shared",
    { keys, pauseMs }: { keys: readonly string[]; pauseMs: number },
  ): Promise<Contender> {
    const program = new URL("./support/slot_contender.ts", import.meta.url).pathname;
    const child = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--no-check", program, lockspace, mode, `${pauseMs}`, ...keys],
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    const contender = new Contender(child);
    await contender.#until((text) => text.startsWith("ready\n"));
    return contender;
  }

  async stop(): Promise<Contended> {
    await this.#child.stdin.close();
    await this.#until(() => false);
    await this.#child.status;
    return JSON.parse(this.#text.slice("ready\n".length));
  }

  async #until(isEnough: (text: string) => boolean): Promise<void> {
    while (!isEnough(this.#text)) {
      const { value, done } = await this.#output.read();
      if (done) return;
      this.#text += value;
    }
  }
}

/** The same clock in every process. */
function now(): number {
  return performance.timeOrigin + performance.now();
}

Deno.test(`in ${CHANGES} changes of access to and fro nobody gets the disk exclusively, and readers come in only while it is readonly`, async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  await world.startRunning(["run", "--name", "vm1", "--disk", disk, "--", "sleep", "600"]);
  const { carriers: [{ pid }], resources: [resource] } = recordOf(world, "vm1");
  const { keys } = resource!;
  await using process = ManagerProcess.start(world, "sync-manager");
  const manager = await attachTo(process, "vm1");
  const contenders = await Promise.all(
    [0, 0].map((pauseMs) => Contender.start(world, "exclusive", { keys, pauseMs })),
  );
  const readers = await Promise.all(
    [1, 3].map((pauseMs) => Contender.start(world, "shared", { keys, pauseMs })),
  );

  const exclusive: { from: number; to: number }[] = [];
  let from = now();
  let refused = 0;
  for (let done = 0; done < CHANGES;) {
    const access = done % 2 === 0 ? "readonly" : "exclusive";
    if (access === "readonly") exclusive.push({ from, to: now() });
    try {
      await manager.call("changeAccess", [{ type: "disk", name: disk, access }]);
      done++;
    } catch (error) {
      // Somebody read the disk for as long as it was tried.
      assert.ok(
        error instanceof LockvisorError && error.code === "locked" && access === "exclusive",
        `${error}`,
      );
      refused++;
    }
    from = now();
    const slots = slotsOf(pid, world.lockspace);
    assert.deepEqual(keys.map((key) => slots.get(key)), ["ab", "ab"], `after change ${done}`);
  }
  const contended = await Promise.all(contenders.map((each) => each.stop()));
  const read = await Promise.all(readers.map((each) => each.stop()));

  assert.deepEqual(contended.flatMap(({ had }) => had), [], "somebody else had the disk exclusively");
  const had = read.flatMap((each) => each.had);
  const intruders = had.filter((one) =>
    exclusive.some((other) => one.from < other.to && other.from < one.to)
  );
  assert.deepEqual(intruders, [], "somebody read the disk while the guest had it exclusively");
  assert.ok(had.length > 0, "nobody ever read it");
  for (const { attempts } of contended) assert.ok(attempts >= CHANGES, `only ${attempts} attempts`);
  assert.ok(refused <= CHANGES, `refused ${refused} times`);
  assert.equal((await world.run(["attach"])).code, 0);
});
