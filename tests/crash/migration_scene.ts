import assert from "node:assert/strict";
import { keyOf, uuidOfName } from "../../lib/identity/key.ts";
import { leaseIdentity } from "../../lib/identity/resource.ts";
import type { CountingDisk } from "../support/counting_disk.ts";
import { FastContender } from "../support/fast_contender.ts";
import type { Guest } from "../support/guest.ts";
import { isAlive, type MigratingQemu } from "../support/migrating_qemu.ts";
import { comeInSleep, done, json, MigrationWorld, slotsOf, startSleep } from "../support/migration_world.ts";
import { Relay } from "../support/relay.ts";
import { RunChronicle } from "../support/run_chronicle.ts";
import { until } from "../support/until.ts";
import type { Finished, World } from "../support/world.ts";
import { FAILPOINT_BINARY } from "./crash.ts";

/** Which of the two hosts. */
export type Side = "source" | "destination";

/** How far a migration can have come, in its order. */
export const STAGES = [
  "started",
  "prepared",
  "incoming",
  "sending",
  "switching",
  "sent",
  "destination-waiting",
  "source-completed",
  "both-completed",
] as const;

/** How far a migration has come. */
export type Stage = typeof STAGES[number];

const UUID = uuidOfName("vm1");

/** A migration that is led to some stage and disturbed there, watched all the time. */
export class MigrationScene implements AsyncDisposable {
  readonly contender: FastContender;
  readonly chronicle = new RunChronicle();
  /** The keys that both hosts know: the disk's, and the guest's lease on itself. */
  readonly keys: string[];
  readonly guests: Partial<Record<Side, Guest>> = {};
  readonly qemus: Partial<Record<Side, MigratingQemu>> = {};
  relay: Relay | undefined;
  ticket = "";
  /** Connections on which nobody reads what is sent. */
  readonly deaf: Promise<Deno.UnixConn>[] = [];

  private constructor(
    readonly world: MigrationWorld,
    readonly disk: string,
    readonly counting: CountingDisk | undefined,
  ) {
    const storage = [`storage:san1:disk`, `storage-inode:san1:${Deno.statSync(disk).ino}`].map(keyOf);
    this.contender = new FastContender(world.lockspace, storage);
    this.keys = [keyOf(leaseIdentity("guest", UUID)), ...storage].sort();
  }

  static async create(kind: "qemu" | "sleep"): Promise<MigrationScene> {
    const world = await MigrationWorld.create();
    if (kind === "sleep") return new MigrationScene(world, await world.disk("disk"), undefined);
    const counting = await world.countingDisk("disk");
    return new MigrationScene(world, counting.path, counting);
  }

  host(side: Side): World {
    return side === "source" ? this.world.source : this.world.destination;
  }

  /** Leads it on, one stage after the other, up to and with one. */
  async reach(stage: Stage): Promise<void> {
    for (const each of STAGES.slice(0, STAGES.indexOf(stage) + 1)) {
      // These two are ways of sending that do not come to an end.
      if (each !== stage && (each === "sending" || each === "switching")) continue;
      await this.#step(each);
    }
  }

  async #step(stage: Stage): Promise<void> {
    const { source, destination } = this.qemus;
    switch (stage) {
      case "started":
        await this.#start();
        this.contender.start();
        return;
      case "prepared":
        this.ticket = await this.world.prepare();
        return;
      case "incoming":
        return await this.comeIn();
      case "sending":
        await source!.sendSlowly(this.#relayed());
        return await until("something has gone through", () => this.relay!.passed > 0);
      case "switching": {
        const capabilities = [{ capability: "pause-before-switchover", state: true }];
        await source!.execute("migrate-set-capabilities", { capabilities });
        await source!.send(this.#relayed());
        const isThere = async () => (await source!.sending()) === "pre-switchover";
        return await until("QEMU is about to switch over", isThere);
      }
      case "sent":
        await source!.send(this.#relayed());
        await source!.sent();
        return await until("the guest runs there", async () => (await destination!.state()) === "running");
      case "destination-waiting": {
        const { code, stderr } = await this.host("destination").run(["migrate", "complete", "vm1"]);
        assert.equal(code, 75, stderr);
        return;
      }
      case "source-completed":
        await done(this.host("source"), ["migrate", "complete", "vm1"]);
        return;
      case "both-completed":
        await done(this.host("destination"), ["migrate", "complete", "vm1"]);
        return;
    }
  }

  async #start(): Promise<void> {
    if (this.counting === undefined) {
      return this.#add("source", await startSleep(this.host("source"), "vm1", ["--disk", this.disk]));
    }
    const qemu = await this.world.start({ disks: [{ path: this.disk }] });
    await this.#addQemu("source", qemu, "running");
    await until("the guest writes", () => this.counting!.count() > 1);
  }

  /** Has the guest come in at the destination. */
  async comeIn(): Promise<void> {
    if (this.counting === undefined) {
      return this.#add("destination", await comeInSleep(this.host("destination"), this.ticket));
    }
    const qemu = await this.world.comeIn(this.ticket, { disks: [{ path: this.disk }] });
    await this.#addQemu("destination", qemu, "stopped");
  }

  async #addQemu(side: Side, qemu: MigratingQemu, now: "running" | "stopped"): Promise<void> {
    this.qemus[side] = qemu;
    await this.chronicle.follow(side, `${qemu.place}.events`, now);
    this.#add(side, qemu.guest);
  }

  #add(side: Side, guest: Guest): void {
    this.guests[side] = guest;
    this.contender.watch(guest.pid, side);
  }

  #relayed(): string {
    const { place } = this.qemus.destination!;
    this.relay ??= new Relay(`${place}.relay`, `${place}.mig`);
    return this.relay.uri;
  }

  /** Runs lockvisor with an armed failpoint, which must be reached. */
  async killedAt(side: Side, args: readonly string[], point: string): Promise<void> {
    const { signal, code, stderr } = await this.host(side).execute(FAILPOINT_BINARY, [...args], {
      env: { LOCKVISOR_FAILPOINT: point },
    });
    assert.equal(signal, "SIGKILL", `${point} was not reached: exit status ${code}: ${stderr}`);
  }

  /**
   * The same at the source, whose command is held up as soon as it has taken all slots back; QEMU begins to send in that
   * moment, to somebody who never answers.
   */
  async killedWhileSendingBegins(args: readonly string[], point: string): Promise<void> {
    const { source } = this.world;
    const last = [...slotsOf(this.guests.source!.pid, source.lockspace).keys()].sort().at(-1)!;
    const held = ["-f", "-qq", "-o", "/dev/null", "-P", `${source.lockspace}/${last}.b`];
    const delayed = ["-e", "trace=flock", "-e", "inject=flock:delay_exit=2s"];
    const killed = source.execute("strace", [...held, ...delayed, FAILPOINT_BINARY, ...args], {
      env: { LOCKVISOR_FAILPOINT: point },
    });
    await until(
      "the command has taken all slots back",
      () => slotsOf(this.guests.source!.pid, source.lockspace).get(last) === "ab",
    );
    using deaf = Deno.listen({ transport: "unix", path: `${source.directory}/deaf` });
    this.deaf.push(deaf.accept());
    await this.qemus.source!.sendSlowly(`unix:${source.directory}/deaf`);
    const { signal, code, stderr } = await killed;
    assert.equal(signal, "SIGKILL", `${point} was not reached: exit status ${code}: ${stderr}`);
  }

  /** Kills the guest's process of a side. */
  async kill(side: Side): Promise<void> {
    await this.guests[side]!.kill();
  }

  isLiving(side: Side): boolean {
    const pid = this.guests[side]?.pid;
    return pid !== undefined && isAlive(pid);
  }

  /** A start on either host that wants the disk; its command would leave a mark. */
  async tryToStart(): Promise<Finished[]> {
    return await Promise.all((["source", "destination"] as const).map((side) =>
      this.host(side).run([
        ...["run", "--name", `thief-${side}`, "--disk", this.disk, "--"],
        ...["sh", "-c", `echo ${side} >> ${this.world.images}/won`],
      ])
    ));
  }

  /** What those starts have left behind. */
  wins(): string[] {
    try {
      return Deno.readTextFileSync(`${this.world.images}/won`).split("\n");
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return [];
      throw error;
    }
  }

  /** What a side is like: the guest's state, QEMU's, and what it has of each key. */
  async seen(side: Side): Promise<string> {
    const { migrations } = await json(this.host(side), ["migrate", "status"]);
    const guest = migrations[0]?.guest ?? (await json(this.host(side), ["status"])).guests[0];
    if (guest === undefined) return this.isLiving(side) ? "unknown to lockvisor" : "nothing";
    const parts = [`\`${guest.state}\``];
    if (!this.isLiving(side)) parts.push("its process has ended");
    else {
      const qemu = await this.qemus[side]?.state();
      if (qemu !== undefined) parts.push(`QEMU ${qemu}`);
      parts.push(this.#slotsOf(side));
    }
    return parts.join(", ");
  }

  /** What it has of the keys that both know. */
  #slotsOf(side: Side): string {
    const slots = slotsOf(this.guests[side]!.pid, this.world.lockspace);
    const kinds = new Set(this.keys.map((key) => slots.get(key) ?? ""));
    const [only] = kinds;
    if (kinds.size > 1) return kinds.has("a") ? "slots a, some b" : "slots b, some a";
    return only === "ab" ? "both slots" : only === "" ? "no slots" : `slots ${only}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.contender.stop();
    await this.relay?.[Symbol.asyncDispose]();
    for (const connection of this.deaf) (await connection).close();
    await this.world[Symbol.asyncDispose]();
    await this.chronicle[Symbol.asyncDispose]();
  }
}
