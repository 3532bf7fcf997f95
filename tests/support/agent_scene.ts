import assert from "node:assert/strict";
import type { AgentEvent, EventType } from "../../lib/agent/event.ts";
import { GuestStore } from "../../lib/manager/guest_store.ts";
import type { GuestRecord } from "../../lib/manager/guest_record.ts";
import type { Agent } from "./agent.ts";
import { canLock } from "./kernel.ts";
import { until } from "./until.ts";
import type { World } from "./world.ts";

/** All events that an agent has written to its log. */
export class Told {
  readonly #agent: Agent;

  constructor(agent: Agent) {
    this.#agent = agent;
  }

  /** All so far. */
  get all(): AgentEvent[] {
    return this.#agent.log.flatMap((line) => line.event === undefined ? [] : [line as unknown as AgentEvent]);
  }

  /** Those about a guest, as their types. */
  types(guest: string): EventType[] {
    return this.about(guest).map(typeOf);
  }

  about(guest: string): AgentEvent[] {
    return this.all.filter((event) => event.guest?.name === guest);
  }

  of(type: EventType): AgentEvent[] {
    return this.all.filter((event) => typeOf(event) === type);
  }

  /** Waits for the first event of a type about a guest. @throws when it does not come within a time, in milliseconds */
  async first(guest: string, type: EventType, withinMs = 20_000): Promise<AgentEvent> {
    const find = () => this.about(guest).find((event) => typeOf(event) === type);
    try {
      await until(`${type} of ${guest} is told`, () => find() !== undefined, withinMs);
    } catch (error) {
      const told = this.all.map((event) => `${typeOf(event)}: ${event.message}`).join("\n");
      throw new Error(`${(error as Error).message}; told was:\n${told}`);
    }
    return find()!;
  }
}

/** In the log an event's type has another name than in the event. */
export function typeOf(event: AgentEvent): EventType {
  return (event as unknown as { event: EventType }).event;
}

/** The record of a guest, by its name. */
export function recordOf(world: World, name: string): GuestRecord {
  const entries = new GuestStore(world.runtimeDir).list();
  const found = entries.flatMap((entry) => entry.kind === "record" ? [entry.record] : [])
    .find((record) => record.name === name);
  assert.ok(found !== undefined, `there is a record of ${name}`);
  return found;
}

/** The lock files of all that a guest should have, the lease on itself first. */
export function filesOf(world: World, { leaseKeys, resources }: GuestRecord): string[] {
  const keys = [...leaseKeys, ...resources.flatMap((resource) => resource.keys)];
  return keys.flatMap((key) => ["a", "b"].map((slot) => `${world.lockspace}/${key}.${slot}`));
}

/** The lock files of a guest's disks. */
export function diskFiles(world: World, record: GuestRecord): string[] {
  return filesOf(world, { ...record, leaseKeys: [] });
}

/** Those that the kernel lets somebody else lock. */
export async function freeFiles(files: readonly string[]): Promise<string[]> {
  const free = await Promise.all(files.map((file) => canLock(file)));
  return files.filter((_, index) => free[index]);
}

/** Does something while the agent stands still, so that it comes too late for certain. */
export async function behindItsBack(agent: Agent, action: () => Promise<unknown>): Promise<void> {
  agent.kill("SIGSTOP");
  try {
    await action();
  } finally {
    agent.kill("SIGCONT");
  }
}

/** Waits until the agent has looked at all locks so many times more. It has to log at level debug. */
export async function looks(agent: Agent, count: number): Promise<void> {
  const looked = () => agent.log.filter(({ message }) => message.startsWith("looked at ")).length;
  const before = looked();
  await until(`the agent looks ${count} times more`, () => looked() >= before + count);
}

/** How a process is, by /proc/PID/stat: `T` is stopped; undefined when it is gone. */
export function processState(pid: number): string | undefined {
  try {
    return /\) (\S) /.exec(Deno.readTextFileSync(`/proc/${pid}/stat`))![1];
  } catch {
    return undefined;
  }
}

/** What the agent tells of a guest and its locks, or nothing. */
export interface ShownGuest {
  name: string;
  uuid: string;
  state: string;
  pid: number;
  locks: { held: number; lost: number; total: number };
  resources: { name: string; keys: string[]; locked: boolean | null }[];
}

export async function guestsOf(agent: Agent): Promise<ShownGuest[]> {
  const answer = await agent.get("/v1/guests");
  assert.equal(answer.status, 200, answer.body);
  return answer.json.guests;
}
