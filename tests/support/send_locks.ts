import { QmpClient } from "../../lib/qmp/client.ts";
import { ownDescriptorNumbers } from "../../lib/process/descriptor_numbers.ts";

// Locks files, hands their descriptors to QEMU under the names lock0, lock1 … and ends without a word to anybody.
const [socket, ...paths] = Deno.args as [string, ...string[]];
const files = paths.map((path) => {
  const file = Deno.openSync(path, { read: true, write: true, create: true });
  file.lockSync(true);
  return file;
});
const client = await QmpClient.connect(socket);
for (const [index, number] of ownDescriptorNumbers(paths).entries()) {
  await client.sendDescriptor(`lock${index}`, number);
}
Deno.exit(files.length === paths.length ? 0 : 1);
