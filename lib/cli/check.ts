import type { Invocation } from "./parse.ts";
import type { CliContext } from "./context.ts";
import type { Forecast } from "../driver/contract.ts";
import { LockvisorError } from "../errors.ts";
import { checkResources, resolveOnHost } from "../host_lock.ts";
import { parseDisk, parseLease } from "../identity/specification.ts";
import { DEFAULT_DRIVER } from "../manager/registry.ts";
import { forecastJson, forecastLine } from "./forecast_text.ts";
import { openSession } from "./session.ts";

/** `lockvisor check`: would all of this be granted now? */
export async function run({ options }: Invocation, context: CliContext): Promise<number> {
  const specs = [...options.texts("disk").map(parseDisk), ...options.texts("lease").map(parseLease)];
  if (specs.length === 0) throw new LockvisorError("usage", "check: name at least one --disk or --lease");
  const session = await openSession(options, context);
  const resources = specs.map((spec) => resolveOnHost(session, spec));
  const forecasts = await checkResources(session, DEFAULT_DRIVER, resources);
  const granted = forecasts.every(isGranted);
  context.out(
    options.isGiven("json")
      ? JSON.stringify({ granted, resources: forecasts.map(forecastJson) }) + "\n"
      : forecasts.map(forecastLine).join(""),
  );
  return granted ? 0 : 1;
}

function isGranted({ verdict }: Forecast): boolean {
  return verdict !== "refused";
}
