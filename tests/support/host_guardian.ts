import { mountedCgroups } from "./cgroups.ts";

/**
 * Waits until nobody has the other end of its standard input, which is also when the tests were killed; then ends
 * all that the hosts left. systemd-nspawn gets the time to clear up after its container: without it a folder in /tmp
 * and one in /run would stay.
 */
const SCRIPT = `
trap '' HUP INT TERM
folder=$1 name=$2 unified=$3
shift 3
cat >/dev/null
end() { for file in "$unified"/"$name"-*/"$1"; do [ -e "$file" ] && echo 1 >"$file"; done; }
is_empty() { ! cat "$unified"/"$name"-*/cgroup.events 2>/dev/null | grep -q '^populated 1'; }
await_empty() { for _ in $(seq 250); do is_empty && return; sleep 0.02; done; }
end payload/cgroup.kill
await_empty
end cgroup.kill
await_empty
for host in "$name-1" "$name-2"; do
  ip netns del "$host"
  for hierarchy in "$@"; do find "$hierarchy/$host" -depth -type d -exec rmdir {} ';'; done
done
rm -rf --one-file-system "$folder"
`;

/** A process that clears up after two hosts, however the tests end. */
export class HostGuardian implements AsyncDisposable {
  readonly #process: Deno.ChildProcess;

  /** @param hosts.name what the names of their cgroups and network namespaces begin with; `-1` and `-2` follow */
  constructor(hosts: { folder: string; name: string }) {
    const { all, unified } = mountedCgroups();
    this.#process = new Deno.Command("setsid", {
      args: ["sh", "-c", SCRIPT, "guardian", hosts.folder, hosts.name, unified, ...all],
      stdin: "piped",
      stdout: "null",
      stderr: "null",
    }).spawn();
  }

  /** Has everything cleared up, and returns when it is. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#process.stdin.close();
    await this.#process.status;
  }
}
