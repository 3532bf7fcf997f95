import type { Invocation } from "./parse.ts";
import type { CliContext } from "./context.ts";
import { LockvisorError } from "../errors.ts";
import { checkResources, resolveOnHost } from "../host_lock.ts";
import { parseDisk, parseLease } from "../identity/specification.ts";
import { DEFAULT_DRIVER } from "../manager/registry.ts";
import { checkResult } from "../report/results.ts";
import { forecastLine } from "./forecast_text.ts";
import { openSession } from "./session.ts";

/** `lockvisor check`: would all of this be granted now? */
export async function run({ options }: Invocation, context: CliContext): Promise<number> {
  const specs = [...options.texts("disk").map(parseDisk), ...options.texts("lease").map(parseLease)];
  if (specs.length === 0) throw new LockvisorError("usage", "check: name at least one --disk or --lease");
  const session = await openSession(options, context);
  const resources = specs.map((spec) => resolveOnHost(session, spec));
  const forecasts = await checkResources(session, DEFAULT_DRIVER, resources);
  const result = checkResult(forecasts);
  context.out(
    options.isGiven("json") ? JSON.stringify(result) + "\n" : forecasts.map(forecastLine).join(""),
  );
  return result.granted ? 0 : 1;
}
