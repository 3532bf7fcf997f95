// A driver that leases whole guests: one file for each guest, locked while it runs. Two guests may use the same disk.
export default {
  name: "whole-guests",
  capabilities: { resources: [], hotplug: false, pause: false, migration: false },
  create: (config) => new WholeGuests(config),
};

/** How long a refusal is tried again, in milliseconds: `isHeld` below tries locks, each for an instant. */
const RETRY_MS = 500;

class WholeGuests {
  constructor({ lockspace, host, effectiveUid }) {
    this.lockspace = lockspace.path;
    this.directory = `${lockspace.path}/whole-guests`;
    this.host = host;
    this.user = effectiveUid;
  }

  async acquire(guest) {
    this.prepare();
    const key = await keyOf(guest);
    const path = this.fileOf(key);
    const file = Deno.openSync(path, { read: true, write: true, create: true, mode: 0o600 });
    if (!await lockWithin(file, RETRY_MS)) {
      file.close();
      const resource = { type: "lease", name: `guest:${guest.uuid}`, access: "exclusive" };
      return { outcome: "refused", refusal: { resource, holders: [readHolder(path)] } };
    }
    file.truncateSync(); // whoever is refused from now on reads who we are
    file.writeSync(new TextEncoder().encode(JSON.stringify(this.holder(guest))));
    const locks = [{ key, slots: { a: descriptorOf(path) } }];
    return { outcome: "granted", hold: { locks, leaseKeys: [key], giveBack: () => file.close() } };
  }

  /** Tried with another descriptor: closing that one does not touch a lock of anybody's. */
  isHeld(keys) {
    return keys.some((key) => {
      const file = openIfPresent(this.fileOf(key));
      if (file === undefined) return false;
      const isFree = file.tryLockSync(true);
      file.close();
      return !isFree;
    });
  }

  evidence(claims) {
    return claims.map(({ pid, locks }) =>
      locks.map(({ key, slots }) => ({ key, held: holds(pid, slots.a, this.fileOf(key)) }))
    );
  }

  /** Messages name who has inherited a lock if its file is called so. */
  fileOf(key) {
    return `${this.directory}/${key}.a`;
  }

  prepare() {
    try {
      Deno.mkdirSync(this.directory, { mode: 0o700 });
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) {
        throw failure(
          "config",
          `there is no lockspace ${this.lockspace}; make it: lockvisor init ${this.lockspace}`,
        );
      }
      if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
    }
    const { isDirectory, uid, mode } = Deno.lstatSync(this.directory);
    if (!isDirectory || uid !== this.user || (mode & 0o022) !== 0) {
      throw failure(
        "permission",
        `${this.directory} is not a folder of uid ${this.user} that nobody else may write`,
      );
    }
  }

  holder({ uuid, name }) {
    const since = new Date().toISOString();
    return { uuid, name, pid: Deno.pid, host: this.host.name, access: "exclusive", since, alive: true };
  }
}

/** An error with the code that decides the exit status. */
function failure(code, message) {
  return Object.assign(new Error(message), { code });
}

/** The name of a guest's lock: 64 hexadecimal digits. */
async function keyOf({ uuid }) {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(`whole-guests:${uuid}`));
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function lockWithin(file, ms) {
  const deadline = performance.now() + ms;
  while (!file.tryLockSync(true)) {
    if (performance.now() > deadline) return false;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  return true;
}

function readHolder(path) {
  try {
    return JSON.parse(Deno.readTextFileSync(path));
  } catch {
    return { uuid: null, name: null, pid: null, host: null, access: null, since: null, alive: null };
  }
}

function openIfPresent(path) {
  try {
    return Deno.openSync(path, { read: true });
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/** The number of our descriptor on a file: Deno does not tell it, the kernel does. */
function descriptorOf(path) {
  for (const { name } of Deno.readDirSync("/proc/self/fd")) {
    if (targetOf("self", name) === path) return Number(name);
  }
  throw new Error(`the descriptor of ${path} is not to be found`);
}

/** Whether a process holds the flock on a file in a descriptor: true, false, or null for "not known". */
function holds(pid, descriptor, path) {
  try {
    if (targetOf(pid, descriptor) !== path) return false;
    return /^lock:.*FLOCK/m.test(Deno.readTextFileSync(`/proc/${pid}/fdinfo/${descriptor}`));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    return null;
  }
}

function targetOf(pid, descriptor) {
  try {
    return Deno.readLinkSync(`/proc/${pid}/fd/${descriptor}`);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}
