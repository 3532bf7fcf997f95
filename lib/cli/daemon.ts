import { loadAgentSettings } from "../config/agent_settings.ts";
import { loadSettings } from "../config/settings.ts";
import type { LogFormat, LogLevel } from "../agent/agent_log.ts";
import type { CliContext } from "./context.ts";
import type { Invocation, OptionValues } from "./parse.ts";
import { settingFlags } from "./session.ts";

/** `lockvisor daemon`: the agent of this host. */
export async function daemon({ options }: Invocation, context: CliContext): Promise<number> {
  const { runDaemon } = await import("../agent/daemon.ts");
  const sources = {
    flags: settingFlags(options),
    environment: context.environment,
    effectiveUid: context.effectiveUid,
  };
  await runDaemon({
    async readSettings() {
      const settings = await loadSettings(sources);
      const agent = await loadAgentSettings({
        sources,
        flags: {
          socket: options.text("socket"),
          listen: options.text("listen"),
          "audit-interval": options.text("audit-interval"),
          "reconcile-interval": options.text("reconcile-interval"),
          hooks: options.text("hooks"),
          "hook-timeout": options.text("hook-timeout"),
        },
        runtimeDir: settings.runtimeDir,
        listening: options.isGiven("listen-anywhere") ? "anywhere" : "loopback",
      });
      return { settings, agent };
    },
    user: { effectiveUid: context.effectiveUid, hostName: context.hostName },
    log: {
      format: logFormat(options, context),
      level: (options.text("log-level") ?? "info") as LogLevel,
      colours: context.errorColours,
      write: context.writeError,
    },
    environment: context.environment,
    listening: (url) => context.out(`${url}\n`),
  });
  return 0;
}

/** The journal takes priorities from the lines of what it started; sd-daemon(3), systemd.exec(5) on JOURNAL_STREAM. */
function logFormat(options: OptionValues, context: CliContext): LogFormat {
  const given = options.text("log-format") ?? "auto";
  if (given !== "auto") return given as LogFormat;
  return context.environment("JOURNAL_STREAM") === undefined ? "text" : "journal";
}
