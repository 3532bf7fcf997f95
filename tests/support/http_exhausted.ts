import { HttpServer } from "../../lib/http/server.ts";
import { get, RawClient } from "./http_client.ts";

// A program for one test: takes all descriptors that it may have, and looks what its server makes of that.

// The runtime makes its pipe for signals when it first needs it, and 2.9 dies when it cannot; so it is made now.
const ignored = () => {};
Deno.addSignalListener("SIGUSR2", ignored);

const directory = Deno.makeTempDirSync({ prefix: "lockvisor-test-" });
const path = `${directory}/http`;
const listener = Deno.listen({ transport: "unix", path });
const accept = listener.accept.bind(listener);
let attempts = 0;
listener.accept = () => {
  attempts++;
  return accept();
};
const problems: string[] = [];
const server = new HttpServer(listener, {
  handler: ({ path }) => ({ status: 200, body: path }),
  fail: (_, message) => ({ type: "text/plain", body: message }),
  problem: (line) => problems.push(line),
});

const files: Deno.FsFile[] = [];
const client = new RawClient(await Deno.connect({ transport: "unix", path }));
await client.send(get("/1"));
await client.answer();
// One descriptor is left for the client: its connection waits in the kernel's queue.
while (true) {
  try {
    files.push(Deno.openSync("/dev/null"));
  } catch {
    break;
  }
}
files.pop()!.close();
const waiting = new RawClient(await Deno.connect({ transport: "unix", path }));
await waiting.send(get("/2"));
await new Promise((resolve) => setTimeout(resolve, 1_000));
const attemptsWithout = attempts;
for (const file of files) file.close();
const answer = await waiting.answer();
client.close();
waiting.close();
await server.close(1_000);
Deno.removeSignalListener("SIGUSR2", ignored);
Deno.removeSync(directory, { recursive: true });
console.log(JSON.stringify({ problems, attempts: attemptsWithout, served: answer.body === "/2" }));
