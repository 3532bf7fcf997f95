import assert from "node:assert/strict";
import type { AgentEvent } from "../lib/agent/event.ts";
import { Hooks } from "../lib/agent/hooks.ts";
import { until } from "./support/until.ts";

/** A directory of hooks, what they were told, and what the agent was told of them. */
class HookDirectory implements AsyncDisposable {
  readonly failures: string[] = [];
  readonly hooks: Hooks;

  private constructor(readonly directory: string) {
    this.hooks = new Hooks(
      { directory: `${directory}/hooks`, timeoutMs: 60_000 },
      Deno.uid()!,
      ({ message }) => this.failures.push(message),
    );
  }

  static async create(): Promise<HookDirectory> {
    const made = new HookDirectory(await Deno.makeTempDir({ prefix: "lockvisor-test-" }));
    await Deno.mkdir(`${made.directory}/hooks`, { mode: 0o755 });
    return made;
  }

  /** A hook that writes down what it is told. */
  add(): void {
    const path = `${this.directory}/hooks/write`;
    Deno.writeTextFileSync(path, `#!/bin/sh\ncat >>${this.directory}/told\n`);
    Deno.chmodSync(path, 0o755);
  }

  call(id: string): void {
    const event: AgentEvent = {
      id,
      time: "2026-11-22T20:14:03.000Z",
      type: "problem",
      guest: null,
      resources: [],
      holder: null,
      message: "",
    };
    this.hooks.call(event);
  }

  /** The ids of the events that the hook was told. */
  async told(): Promise<string[]> {
    const text = await Deno.readTextFile(`${this.directory}/told`).catch(() => "");
    return text.split("\n").filter((line) => line !== "").map((line) => JSON.parse(line).id);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.hooks.end(10_000);
    await Deno.remove(this.directory, { recursive: true });
  }
}

Deno.test("hooks: an event in the same turn as one that no hook wanted is told at once", async () => {
  await using place = await HookDirectory.create();
  place.call("e-1"); // there is no hook yet
  place.add();
  place.call("e-2");
  await until("the hook was told", async () => (await place.told()).length > 0);
  assert.deepEqual(await place.told(), ["e-2"]);
});

Deno.test("hooks: where there are none, no number of events is too much for them", async () => {
  await using place = await HookDirectory.create();
  for (let number = 1; number <= 3000; number++) place.call(`e-${number}`);
  assert.deepEqual(place.failures, []);
});

Deno.test("hooks: all that comes in one turn is told, in order", async () => {
  await using place = await HookDirectory.create();
  place.add();
  const ids = Array.from({ length: 20 }, (_, number) => `e-${number}`);
  for (const id of ids) place.call(id);
  await until("all are told", async () => (await place.told()).length === ids.length);
  assert.deepEqual(await place.told(), ids);
});
