import { type FailpointName, FAILPOINTS } from "./failpoint_names.ts";

/** `NAME` or `NAME:COUNT`: the point at which the program is killed, and at which passage of it. */
const VARIABLE = "LOCKVISOR_FAILPOINT";

/** How often the armed point is passed before it strikes; undefined when none is armed. */
let armed: { name: FailpointName; passages: number } | undefined | "unread" = "unread";

/** The test build's failpoint: kills this process, as `kill -9` would, at the point that the environment names. */
export function failpoint(name: FailpointName): void {
  if (armed === "unread") armed = readVariable(Deno.env.get(VARIABLE));
  if (armed?.name !== name || --armed.passages > 0) return;
  Deno.kill(Deno.pid, "SIGKILL");
  // The first process of a pid namespace gets no signal from itself; pid_namespaces(7).
  throw new Error(`failpoint ${name}: this process cannot be killed`);
}

function readVariable(text: string | undefined): { name: FailpointName; passages: number } | undefined {
  if (text === undefined || text === "") return undefined;
  const [word, count = "1"] = text.split(":");
  const name = FAILPOINTS.find((known) => known === word);
  if (name !== undefined && /^[1-9]\d*$/.test(count)) return { name, passages: Number(count) };
  throw new Error(`${VARIABLE}: "${text}" is no failpoint`);
}
