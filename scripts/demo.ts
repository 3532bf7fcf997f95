import { compileLockvisor } from "./compile.ts";
import { DemoStage, expect, type Guest } from "./demo_stage.ts";
import { runScript } from "./failure.ts";
import { ensureCommands } from "./system_packages.ts";

/** How long a guest may take until it runs. Without hardware virtualization on a busy machine that is seconds. */
const RUNS_WITHIN_MS = 20_000;

/** Exit status of `lockvisor run` when somebody else has the disk. */
const LOCKED = 75;

/** What of `lockvisor status --json` matters here. */
interface Status {
  guests: {
    name: string;
    state: string;
    pid: number;
    resources: { name: string; locked: boolean | null }[];
  }[];
}

/** The guest's command: a PC without an operating system, which opens its disk for writing as any guest does. */
function qemu(disk: string): string[] {
  return [
    "qemu-system-x86_64",
    ...["-accel", "tcg", "-m", "16", "-nodefaults", "-display", "none"],
    ...["-drive", `file=${disk},format=qcow2,if=virtio`],
  ];
}

function runGuest(name: string, disk: string): string[] {
  return ["lockvisor", "run", "--name", name, "--disk", disk, "--", ...qemu(disk)];
}

/** Waits until a guest runs under lock, and makes sure that its process is QEMU itself, the very one we started. */
async function waitForGuest(stage: DemoStage, started: Guest): Promise<void> {
  const { name, child } = started;
  const deadline = Date.now() + RUNS_WITHIN_MS;
  for (;;) {
    const { guests } = JSON.parse(await stage.ask(["lockvisor", "status", "--json"])) as Status;
    const guest = guests.find((guest) => guest.name === name);
    if (guest?.state === "running" && guest.resources.every(({ locked }) => locked === true)) {
      expect(guest.pid === child.pid, `${name} is the process that was started`);
      break;
    }
    expect(!started.ended, `${name} goes on running`);
    expect(Date.now() < deadline, `${name} runs within ${RUNS_WITHIN_MS / 1000} s`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  const command = Deno.readTextFileSync(`/proc/${child.pid}/comm`).trim();
  expect(command.startsWith("qemu-system"), "lockvisor has become QEMU");
  console.log(`  (process ${child.pid} was lockvisor and is ${command} now; the kernel shows its locks)`);
}

async function refuse(stage: DemoStage, disk: string): Promise<void> {
  const { text } = await stage.show(runGuest("vm2", disk), { status: LOCKED });
  expect(text.includes('"vm1"'), "the refusal names the guest that has the disk");
}

async function play(stage: DemoStage): Promise<void> {
  stage.heading("A lockspace for the lock files, and a disk");
  await stage.show(["lockvisor", "init", "lockspace"]);
  await stage.show(["qemu-img", "create", "-q", "-f", "qcow2", "disk.qcow2", "64M"]);

  stage.heading("A real QEMU guest starts under lock");
  const first = stage.start("vm1", runGuest("vm1", "disk.qcow2"));
  await waitForGuest(stage, first);

  stage.heading("A second guest cannot have the same disk, whatever the disk is called");
  await refuse(stage, "disk.qcow2");
  await stage.show(["ln", "-s", "disk.qcow2", "symbolic-link.qcow2"]);
  await refuse(stage, "symbolic-link.qcow2");
  await stage.show(["ln", "disk.qcow2", "hard-link.qcow2"]);
  await refuse(stage, "hard-link.qcow2");

  stage.heading("Who runs, and who has the disk");
  await stage.show(["lockvisor", "status"]);
  await stage.show(["lockvisor", "inspect", "disk.qcow2"]);

  stage.heading("The first guest is killed: its locks are gone with it, and the second starts at once");
  await stage.kill(first);
  const second = stage.start("vm2", runGuest("vm2", "disk.qcow2"));
  await waitForGuest(stage, second);
  const { text } = await stage.show(["lockvisor", "status"]);
  expect(text.includes("vm2") && !text.includes("vm1"), "only the second guest is shown");
  await stage.kill(second);
}

async function main(): Promise<number> {
  const started = performance.now();
  await ensureCommands(["qemu-system-x86_64", "qemu-img"]);
  await compileLockvisor("when-stale");
  let folder: string;
  {
    using stage = new DemoStage();
    folder = stage.folder;
    await play(stage);
  }
  const seconds = ((performance.now() - started) / 1000).toFixed(0);
  console.log(`\nAll as it should be, in ${seconds} s; ${folder} is removed.`);
  return 0;
}

if (import.meta.main) await runScript("demo", main);
