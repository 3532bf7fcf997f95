import type { SystemdHost } from "./systemd_host.ts";

/** The addresses of the two hosts. */
export const [ONE, OTHER] = ["10.99.0.1", "10.99.0.2"] as const;

/** One host's root may log into the other as root, by key; its own configuration of ssh counts. */
export async function letIn(one: SystemdHost, other: SystemdHost): Promise<void> {
  await one.must(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/root/.ssh/id_ed25519"]);
  await one.writeFile("/root/.ssh/config", "Host *\n  StrictHostKeyChecking accept-new\n", "0600");
  const key = await one.must(["cat", "/root/.ssh/id_ed25519.pub"]);
  await other.writeFile("/root/.ssh/authorized_keys", key, "0600");
}
