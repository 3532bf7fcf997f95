import { capture, tail } from "../../scripts/capture.ts";
import { ROOT } from "../../scripts/project.ts";
import { debianTree, type TreeContents } from "./debian_tree.ts";
import { HostGuardian } from "./host_guardian.ts";
import { SystemdHost } from "./systemd_host.ts";

/** Where a host finds what both hosts have in common. */
export const SHARED = "/shared";
/** Where a host finds this project, which it cannot write. */
export const SOURCE = "/source";

/**
 * Two hosts with systemd on this machine, joined by a network cable (10.99.0.1, 10.99.0.2), with a folder that both
 * see. Locks in it reach both of them, for there is one kernel. All of it ends with the test, even with a killed one.
 */
export class SystemdHosts implements AsyncDisposable {
  /** The common folder, as this machine sees it. */
  readonly shared: string;
  /** What the names of their cgroups, network namespaces and containers begin with; `-1` and `-2` follow. */
  readonly name: string;
  readonly one: SystemdHost;
  readonly other: SystemdHost;
  readonly #guardian: HostGuardian;

  private constructor(place: { folder: string; name: string; tree: string }) {
    const { folder, name, tree } = place;
    this.name = name;
    this.shared = `${folder}/shared`;
    const binds = [
      { from: this.shared, to: SHARED, access: "writable" as const },
      { from: ROOT, to: SOURCE, access: "readonly" as const },
    ];
    const host = (number: 1 | 2) =>
      new SystemdHost({ hostname: `h${number}`, name: `${name}-${number}`, tree, folder, binds });
    this.one = host(1);
    this.other = host(2);
    this.#guardian = new HostGuardian({ folder, name });
  }

  /**
   * Boots both hosts, or only the first.
   * @throws when this machine cannot, in one line that names what it lacks
   */
  static async boot(
    which: "both" | "first only" = "both",
    contents: TreeContents = "plain",
  ): Promise<SystemdHosts> {
    const tree = await debianTree(contents);
    const folder = await Deno.realPath(await Deno.makeTempDir({ prefix: "lockvisor-hosts-" }));
    const name = `lvt${crypto.randomUUID().slice(0, 8)}`;
    const hosts = new SystemdHosts({ folder, name, tree });
    try {
      await Deno.mkdir(hosts.shared);
      await layCable(name);
      await Promise.all(
        (which === "both" ? [hosts.one, hosts.other] : [hosts.one]).map((host) => host.boot()),
      );
      return hosts;
    } catch (error) {
      await hosts[Symbol.asyncDispose]();
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#guardian[Symbol.asyncDispose]();
  }
}

/** A network namespace for each host, and a cable between the two. */
async function layCable(name: string): Promise<void> {
  const [one, other] = [`${name}-1`, `${name}-2`];
  const link = [
    "link",
    "add",
    "host0",
    "netns",
    one,
    "type",
    "veth",
    "peer",
    "name",
    "host0",
    "netns",
    other,
  ];
  for (const args of [["netns", "add", one], ["netns", "add", other], link]) await ip(args);
  for (const [at, host] of [one, other].entries()) {
    await ip(["-n", host, "addr", "add", `10.99.0.${at + 1}/24`, "dev", "host0"]);
    await ip(["-n", host, "link", "set", "host0", "up"]);
    await ip(["-n", host, "link", "set", "lo", "up"]);
  }
}

async function ip(args: string[]): Promise<void> {
  const { success, stderr } = await capture("ip", args);
  if (!success) throw new Error(`no network for two hosts: ip ${args.join(" ")}: ${tail(stderr).trim()}`);
}
