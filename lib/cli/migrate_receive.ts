import { processResume } from "../domain_lock.ts";
import { LockvisorError } from "../errors.ts";
import { endMigration, findMigration } from "../host_migrations.ts";
import { holdersText } from "../manager/refusal.ts";
import { PROTOCOL, type ReceiveOrder } from "../migration/conversation.ts";
import { LineChannel } from "../migration/line_channel.ts";
import type { ArrivalLocks } from "../migration/carry_on_alone.ts";
import { receiveGuest } from "../migration/receive_guest.ts";
import { VERSION } from "../version.ts";
import type { CliContext } from "./context.ts";
import { SETTING_OPTIONS } from "./definition.ts";
import type { Invocation } from "./parse.ts";
import { openSession, type Session } from "./session.ts";
import { listenForEnd } from "./signals.ts";

/** Silence of the driver that counts as its end, in milliseconds: it says something every three seconds. */
const SILENCE_MS = 30_000;

/** `lockvisor migrate receive`: the other end of `migrate run`, which talks to it through its standard streams. */
export async function receive({ options }: Invocation, context: CliContext): Promise<number> {
  const session = await openSession(options, context);
  session.store.prepare(context.effectiveUid);
  const settings = SETTING_OPTIONS.flatMap(({ name }) =>
    options.texts(name).map((value) => `--${name}=${value}`)
  );
  const terminated = Promise.withResolvers<void>();
  const listening = listenForEnd(["SIGINT", "SIGTERM"], () => terminated.resolve());
  const channel = new LineChannel(Deno.stdin.readable, Deno.stdout.writable);
  try {
    await receiveGuest({
      channel,
      hello: { report: "hello", protocol: PROTOCOL, version: VERSION, hostName: context.hostName },
      startOf: (order) => ({
        command: [
          Deno.execPath(),
          ...settings,
          "migrate",
          "in",
          "--ticket=-",
          `--plugin=${order.plugin}`,
          `--qmp=${order.qmp}`,
          ...order.map.map(({ from, to }) => `--map=${from}=${to}`),
          "--",
          ...order.command,
        ],
        ticket: order.ticket,
        directory: order.directory,
        log: `${session.settings.runtimeDir}/log/${order.guest.uuid}.log`,
      }),
      locksOf: (order) => arrivalLocks(session, order),
      terminated: terminated.promise,
      silenceMs: SILENCE_MS,
    });
  } finally {
    listening.end();
    await channel.end(); // what was said last is still on its way
  }
  return 0;
}

function arrivalLocks(session: Session, { guest }: ReceiveOrder): ArrivalLocks {
  const found = async () => {
    try {
      return await findMigration(session, guest.uuid, "in");
    } catch (error) {
      if (error instanceof LockvisorError && error.code === "data") return undefined; // nobody knows of it any more
      throw error;
    }
  };
  return {
    complete: async ({ waitMs }) => {
      const migration = await found();
      if (migration?.kind !== "migrating") return { outcome: "settled", holders: "" };
      const { outcome, holders } = await endMigration(session, migration.record, {
        action: "complete",
        waitMs,
      });
      return outcome === "waiting"
        ? { outcome, holders: holdersText(holders) }
        : { outcome: "complete", holders: "" };
    },
    cancel: async () => {
      const migration = await found();
      if (migration?.kind !== "migrating") return;
      await endMigration(session, migration.record, { action: "cancel", waitMs: 0 });
    },
    resume: async (pid) => {
      const guestThere = await found();
      if (guestThere?.kind !== "at-rest") return;
      const { record } = guestThere;
      if (record.carriers[0].pid !== pid || record.state !== "paused") return;
      await processResume(await session.domainLock(record), record, { changes: "refuse" });
    },
  };
}
