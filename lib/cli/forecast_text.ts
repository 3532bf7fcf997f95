import type { Forecast } from "../driver/contract.ts";
import { printable } from "../errors.ts";
import type { UnderstoodQemu } from "../qemu/understand.ts";
import { forecastResult } from "../report/results.ts";
import { holdersText } from "../manager/refusal.ts";
import { understoodResult, understoodText } from "./qemu_text.ts";

/** A forecast in one line. */
export function forecastLine({ resource, verdict, holders }: Forecast): string {
  const { type, name, access } = resource;
  return printable(`${type} ${name} (${access}): ${verdictText(verdict, holders)}`) + "\n";
}

function verdictText(verdict: Forecast["verdict"], holders: Forecast["holders"]): string {
  switch (verdict) {
    case "free":
      return "free";
    case "skipped":
      return "not locked (by configuration, or the plugin takes no locks)";
    case "refused":
      return `locked by ${holdersText(holders)}`;
  }
}

/** What would be locked, with the identities and keys behind each name, and what was understood of a QEMU's options. */
export function formatForecasts(
  forecasts: readonly Forecast[],
  format: "text" | "json",
  understood?: UnderstoodQemu,
): string {
  if (format === "json") {
    const qemu = understood === undefined ? {} : { qemu: understoodResult(understood) };
    return JSON.stringify({ resources: forecasts.map(forecastResult), ...qemu }) + "\n";
  }
  const lines = forecasts.map((forecast) => forecastLine(forecast) + identityLines(forecast)).join("");
  return lines + (understood === undefined ? "" : understoodText(understood));
}

function identityLines({ resource }: Forecast): string {
  return resource.identities.map(({ text, key }) => `${printable(`  identity ${text}`)}\n  key      ${key}\n`)
    .join("");
}
