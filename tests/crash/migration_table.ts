import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import type { MigrationCrash, PlayedCrash, Step } from "./migration_play.ts";
import type { Side, Stage } from "./migration_scene.ts";

const DOCUMENT = fileURLToPath(new URL("../../docs/migration.md", import.meta.url));
const BEGIN = "<!-- crash table -->";
const END = "<!-- end of crash table -->";

/** By this variable the table in the documentation is written anew, instead of compared. */
const WRITE = "LOCKVISOR_WRITE_CRASH_TABLE";

const STAGE_WORDS: Record<Stage, string> = {
  "started": "before it begins",
  "prepared": "prepared",
  "incoming": "both sides have half",
  "sending": "QEMU is sending",
  "switching": "QEMU is about to switch over",
  "sent": "everything was sent, the guest runs at the destination",
  "destination-waiting": "the destination was completed first, and waits",
  "source-completed": "the source is completed",
  "both-completed": "both sides are completed",
};

/** What is killed and when, in one line. */
export function killText(crash: MigrationCrash): string {
  return `${stageText(crash)}: ${killedText(crash)}`;
}

function stageText({ stage, before, kill }: MigrationCrash): string {
  if (before !== undefined) return "the destination is cancelled";
  const begins = kill.kind === "command" && kill.when === "sending-begins";
  return begins ? `${STAGE_WORDS[stage]}, and QEMU begins to send meanwhile` : STAGE_WORDS[stage];
}

function killedText({ kill }: MigrationCrash): string {
  switch (kill.kind) {
    case "command": {
      const passage = kill.passage === undefined || kill.passage === 1 ? "" : `, passage ${kill.passage}`;
      return `\`${kill.command}\` on the ${kill.on} at \`${kill.at}\`${passage}`;
    }
    case "process":
      return kill.on === "both"
        ? "the guest's processes on both hosts"
        : `the guest's process on the ${kill.on}`;
    case "connection":
      return `the connection ${kill.how === "broken" ? "breaks" : "stalls"}`;
  }
}

function operatorText({ operator, kill }: MigrationCrash): string {
  return operator.map(([side, action, code = 0]: Step) => {
    const command = action === "again" && kill.kind === "command"
      ? `\`${kill.command}\` again`
      : `\`${action}\``;
    return `${command} on the ${side}${code === 0 ? "" : ` (${code})`}`;
  }).join(", ");
}

function endText(ends: Side | "nowhere"): string {
  return ends === "nowhere" ? "runs nowhere, everything is free" : `runs on the ${ends} with all locks`;
}

/** The table in Markdown. */
export function tableOf(played: readonly PlayedCrash[]): string {
  const header = ["Stage", "Killed", "Source then", "Destination then", "What is done", "The guest"];
  const rows = played.map(({ crash, source, destination }) => [
    stageText(crash),
    killedText(crash),
    source,
    destination,
    operatorText(crash),
    endText(crash.ends),
  ]);
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  return [header, header.map(() => "---"), ...rows].map(line).join("\n");
}

/** The table in the documentation is the one that was seen; or becomes it. */
export async function compareTable(table: string): Promise<void> {
  const text = await Deno.readTextFile(DOCUMENT);
  const [begin, end] = [text.indexOf(BEGIN), text.indexOf(END)];
  assert.ok(begin >= 0 && end > begin, `${DOCUMENT} has the table's marks`);
  if (Deno.env.get(WRITE) === "1") {
    const written = `${text.slice(0, begin)}${BEGIN}\n\n${table}\n\n${text.slice(end)}`;
    return await Deno.writeTextFile(DOCUMENT, written);
  }
  const found = text.slice(begin + BEGIN.length, end).trim();
  assert.deepEqual(
    found.split("\n"),
    table.split("\n"),
    `the table in ${DOCUMENT}; ${WRITE}=1 writes it anew`,
  );
}
