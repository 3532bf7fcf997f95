import { COMMANDS } from "../../lib/cli/commands.ts";
import { manualPage } from "../../lib/cli/manual_page.ts";
import { VERSION } from "../../lib/version.ts";
import { SHARED, SOURCE, type SystemdHosts } from "./systemd_hosts.ts";
import type { SystemdHost } from "./systemd_host.ts";
import { until } from "./until.ts";
import { BINARY } from "./world.ts";

/** Puts into a folder what `deno task dist` makes: the tested program and its manual page. */
export async function makeDist(folder: string): Promise<void> {
  await Deno.mkdir(folder);
  await Deno.copyFile(BINARY, `${folder}/lockvisor`);
  await Deno.writeTextFile(`${folder}/lockvisor.8`, manualPage(COMMANDS, VERSION));
}

/** Runs scripts/install.sh on hosts, as their administrator would, with further settings in the configuration. */
export async function installOn(
  hosts: SystemdHosts,
  which: readonly SystemdHost[],
  configuration = "",
): Promise<void> {
  await makeDist(`${hosts.shared}/dist`);
  await Promise.all(which.map(async (host) => {
    await host.must(["env", `DIST=${SHARED}/dist`, `${SOURCE}/scripts/install.sh`]);
    if (configuration !== "") await host.writeFile("/etc/lockvisor/lockvisor.toml", configuration);
  }));
}

/** Configures a guest for lockvisor-guest@.service. */
export async function configureGuest(
  host: SystemdHost,
  guest: { name: string; locks: string; command: string },
): Promise<void> {
  const text = `LOCKS=${guest.locks}\nCOMMAND=${guest.command}\n`;
  await host.writeFile(`/etc/lockvisor/guests/${guest.name}.conf`, text);
}

/** How many locks a guest has and should have, as the kernel of the host shows them, and by which process it runs. */
export async function guestOn(
  host: SystemdHost,
  name: string,
): Promise<{ state: string; pid: number; held: number; total: number } | undefined> {
  const { guests } = JSON.parse(await host.must(["lockvisor", "status", "--json"]));
  const found = guests.find((guest: { name: string }) => guest.name === name);
  if (found === undefined) return undefined;
  return { state: found.state, pid: found.pid, held: found.locks.held, total: found.locks.total };
}

/** Waits until a guest runs its own command under all its locks: a unit counts as started a little earlier. */
export async function guestRunning(host: SystemdHost, name: string): Promise<number> {
  let pid = 0;
  try {
    await until(`guest ${name} runs under its locks`, async () => {
      const guest = await guestOn(host, name);
      pid = guest?.pid ?? 0;
      return guest?.state === "running" && guest.held === guest.total;
    });
  } catch (error) {
    const { stdout } = await host.run(["systemctl", "status", "--no-pager", `lockvisor-guest@${name}`]);
    throw new Error(`${(error as Error).message}\n${stdout}`);
  }
  return pid;
}
