import type { MoveEvent } from "../migration/move.ts";
import type { CliContext } from "./context.ts";
import { fittingLine, progressParts, stageText } from "./migration_progress.ts";
import { ProgressLine } from "./progress_line.ts";

/** Tells of a migration while it goes on: to people on standard error, to programs line by line on standard output. */
export function migrationReport(
  { guest, destination, format, context }: {
    guest: string;
    destination: string;
    format: "text" | "json";
    context: CliContext;
  },
): { tell(event: MoveEvent): void; end(): void } {
  if (format === "json") {
    const begun = performance.now();
    return {
      tell: (event) => {
        if (event.kind === "warning") context.note(`warning: ${event.message}`);
        else {context.out(
            JSON.stringify({
              ...eventResult(event),
              atMs: Math.round((performance.now() - begun) * 10) / 10,
            }) + "\n",
          );}
      },
      end: () => {},
    };
  }
  const columns = context.errorColumns();
  const line = new ProgressLine(
    columns === undefined ? { kind: "lines", note: context.note } : {
      kind: "terminal",
      columns: () => context.errorColumns() ?? columns,
      write: context.writeError,
    },
  );
  const start = `guest "${guest}"`;
  return {
    tell: (event) => {
      switch (event.kind) {
        case "stage":
          return line.reached((width) => fittingLine(start, [stageText(event.stage, destination)], width));
        case "progress":
          return line.goesOn((width) => fittingLine(start, progressParts(event.progress), width));
        case "warning":
          line.clear();
          return context.note(`warning: ${event.message}`);
      }
    },
    end: () => line.clear(),
  };
}

function eventResult(event: Exclude<MoveEvent, { kind: "warning" }>) {
  if (event.kind === "stage") return { event: "stage", stage: event.stage };
  return { event: "progress", ...event.progress };
}
