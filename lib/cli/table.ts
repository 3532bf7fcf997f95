import { displayWidth } from "./display_width.ts";

/** Colours that add to a meaning, which the text alone carries too. */
export type Colour = "none" | "green" | "yellow" | "red";

/** A cell: plain text, or text with a colour. */
export type TableCell = string | { text: string; colour: Colour };

/** Lines with aligned columns, two spaces between them, no spaces at the end. */
export function formatTable(
  header: readonly string[],
  rows: readonly (readonly TableCell[])[],
  colours: "wanted" | "unwanted",
): string {
  const textOf = (cell: TableCell) => typeof cell === "string" ? cell : cell.text;
  const widths = header.map((title, column) =>
    Math.max(displayWidth(title), ...rows.map((row) => displayWidth(textOf(row[column] ?? ""))))
  );
  const line = (cells: readonly TableCell[]) =>
    cells.map((cell, column) => {
      const text = textOf(cell);
      const padding = column === cells.length - 1 ? "" : " ".repeat(widths[column]! - displayWidth(text));
      return painted(text, typeof cell === "string" ? "none" : cell.colour, colours) + padding;
    }).join("  ").trimEnd() + "\n";
  return [header, ...rows].map(line).join("");
}

const SEQUENCES: Record<Exclude<Colour, "none">, string> = { green: "32", yellow: "33", red: "31" };

function painted(text: string, colour: Colour, colours: "wanted" | "unwanted"): string {
  return colour === "none" || colours === "unwanted" ? text : `\u001b[${SEQUENCES[colour]}m${text}\u001b[0m`;
}
