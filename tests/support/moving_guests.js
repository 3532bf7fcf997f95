// A driver that leases whole guests, as docs/examples/whole_guests.js does, and lets them move to another host: two files
// for each guest, and while it moves each side has one of them. For the tests of what the manager asks of a driver.
export default {
  name: "moving-guests",
  capabilities: { resources: [], hotplug: false, pause: false, migration: true },
  create: (config) => new MovingGuests(config),
};

/** How long a refusal is tried again, in milliseconds: `isHeld` below tries locks, each for an instant. */
const RETRY_MS = 500;
/** flock(2) */
const [LOCK_EX, LOCK_NB, LOCK_UN] = [2, 4, 8];

class MovingGuests {
  constructor({ lockspace, host, effectiveUid }) {
    this.lockspace = lockspace.path;
    this.directory = `${lockspace.path}/moving-guests`;
    this.host = host;
    this.user = effectiveUid;
  }

  async acquire(guest) {
    this.prepare();
    const key = await keyOf(guest);
    const files = [];
    const giveBack = () => files.forEach((file) => file.close());
    for (const slot of ["a", "b"]) {
      const file = open(this.fileOf(key, slot));
      files.push(file);
      if (await lockWithin(file, RETRY_MS)) continue;
      giveBack();
      return { outcome: "refused", refusal: this.refusal(guest, key, slot) };
    }
    for (const file of files) write(file, this.holder(guest));
    const slots = {
      a: descriptorOf("self", this.fileOf(key, "a")),
      b: descriptorOf("self", this.fileOf(key, "b")),
    };
    return { outcome: "granted", hold: { locks: [{ key, slots }], leaseKeys: [key], giveBack } };
  }

  isHeld(keys) {
    return keys.some((key) => ["a", "b"].some((slot) => this.isSlotHeld(key, slot)));
  }

  evidence(claims) {
    return claims.map(({ pid, locks }) =>
      locks.map(({ key, slots }) => {
        const held = Object.keys(slots).map((slot) => holds(pid, this.fileOf(key, slot)));
        return { key, held: held.includes(false) ? false : held.includes(null) ? null : true };
      })
    );
  }

  async makeTicket({ running: { guest }, destination, lifetimeMs }) {
    const key = await keyOf(guest);
    if (this.readOffer(key)?.taken && this.isSlotHeld(key, "b")) {
      throw failure("locked", `guest "${guest.name}" has come in at the destination already`);
    }
    const now = Date.now();
    return {
      secret: await hashOf(crypto.randomUUID()),
      created: new Date(now).toISOString(),
      expires: new Date(now + lifetimeMs).toISOString(),
      guest: { uuid: guest.uuid, name: guest.name, id: guest.id, onLockFailure: guest.onLockFailure },
      plugin: "moving-guests",
      lockspace: JSON.parse(Deno.readTextFileSync(`${this.lockspace}/lockspace.json`)).id,
      source: this.host,
      destination,
      leaseKeys: [key],
      resources: [],
      hostKeys: [],
      grants: [],
    };
  }

  async offer({ guest, process: { pid } }, { secret, expires }) {
    const key = await keyOf(guest);
    this.writeOffer(key, { hash: await hashOf(secret), expires, taken: false });
    const file = this.fileOf(key, "b");
    steer(pid, descriptorOf(pid, file), LOCK_UN);
  }

  async acquireIncoming(guest, ticket) {
    this.prepare();
    const key = await keyOf(guest);
    const offer = this.readOffer(key);
    if (offer === undefined) throw failure("data", `the ticket of guest "${guest.name}" is stale`);
    if (offer.hash !== await hashOf(ticket.secret)) {
      throw failure("permission", `this is not the ticket that guest "${guest.name}" may come in by`);
    }
    if (offer.taken) throw failure("data", `the ticket of guest "${guest.name}" was used already`);
    if (Date.parse(offer.expires) < Date.now()) {
      throw failure("data", `the ticket of guest "${guest.name}" has expired`);
    }
    const [file, other] = [open(this.fileOf(key, "b")), open(this.fileOf(key, "a"))];
    const giveBack = () => [file, other].forEach((each) => each.close());
    if (!await lockWithin(file, RETRY_MS)) {
      giveBack();
      return { outcome: "refused", refusal: this.refusal(guest, key, "b") };
    }
    write(file, this.holder(guest));
    this.writeOffer(key, { ...offer, taken: true });
    const locks = [{ key, slots: { b: descriptorOf("self", this.fileOf(key, "b")) } }];
    const unlocked = [descriptorOf("self", this.fileOf(key, "a"))];
    return { outcome: "granted", hold: { locks, unlocked, leaseKeys: [key], giveBack } };
  }

  async takeOver(running) {
    const key = await keyOf(running.guest);
    const taken = this.take(running, key, "a");
    if (taken.outcome === "taken") this.removeOffer(key);
    return taken.outcome === "refused" ? { outcome: "waiting", key, holders: taken.holders } : taken;
  }

  async withdraw(running, confirm) {
    const key = await keyOf(running.guest);
    const taken = this.take(running, key, "b");
    if (taken.outcome === "refused") return { outcome: "taken", key, holders: taken.holders };
    if (await confirm() === "decline") {
      steer(running.process.pid, descriptorOf(running.process.pid, this.fileOf(key, "b")), LOCK_UN);
      return { outcome: "declined" };
    }
    this.removeOffer(key);
    return { ...taken, outcome: "withdrawn" };
  }

  async otherSide({ guest }, { role }) {
    const key = await keyOf(guest);
    const slot = role === "out" ? "b" : "a";
    const held = this.isSlotHeld(key, slot);
    return { held, holders: held ? [readHolder(this.fileOf(key, slot))] : [] };
  }

  async leave({ guest }, { role }) {
    if (role === "out") this.removeOffer(await keyOf(guest));
  }

  take({ process, carriers }, key, slot) {
    const path = this.fileOf(key, slot);
    const descriptor = descriptorOf(process.pid, path);
    if (!steer(process.pid, descriptor, LOCK_EX | LOCK_NB)) {
      return { outcome: "refused", holders: [readHolder(path)] };
    }
    const locks = carriers[0].locks.map((lock) => ({
      ...lock,
      slots: { ...lock.slots, [slot]: descriptor },
    }));
    return { outcome: "taken", carriers: [{ ...carriers[0], locks }], grants: [] };
  }

  fileOf(key, slot) {
    return `${this.directory}/${key}.${slot}`;
  }

  isSlotHeld(key, slot) {
    const file = openIfPresent(this.fileOf(key, slot));
    if (file === undefined) return false;
    const isFree = file.tryLockSync(true);
    file.close();
    return !isFree;
  }

  refusal({ uuid }, key, slot) {
    const resource = { type: "lease", name: `guest:${uuid}`, access: "exclusive" };
    return { resource, holders: [readHolder(this.fileOf(key, slot))] };
  }

  readOffer(key) {
    try {
      return JSON.parse(Deno.readTextFileSync(`${this.directory}/${key}.offer`));
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return undefined;
      throw error;
    }
  }

  writeOffer(key, offer) {
    const path = `${this.directory}/${key}.offer`;
    Deno.writeTextFileSync(`${path}.new`, JSON.stringify(offer), { mode: 0o600 });
    Deno.renameSync(`${path}.new`, path);
  }

  removeOffer(key) {
    if (this.readOffer(key) !== undefined) Deno.removeSync(`${this.directory}/${key}.offer`);
  }

  prepare() {
    try {
      Deno.mkdirSync(this.directory, { mode: 0o700 });
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) {
        throw failure("config", `there is no lockspace ${this.lockspace}`);
      }
      if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
    }
  }

  holder({ uuid, name }) {
    const since = new Date().toISOString();
    return { uuid, name, pid: Deno.pid, host: this.host.name, access: "exclusive", since, alive: true };
  }
}

function failure(code, message) {
  return Object.assign(new Error(message), { code });
}

async function hashOf(text) {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function keyOf({ uuid }) {
  return hashOf(`moving-guests:${uuid}`);
}

function open(path) {
  return Deno.openSync(path, { read: true, write: true, create: true, mode: 0o600 });
}

function openIfPresent(path) {
  try {
    return Deno.openSync(path, { read: true });
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

async function lockWithin(file, ms) {
  const deadline = performance.now() + ms;
  while (!await file.tryLock(true)) {
    if (performance.now() > deadline) return false;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  return true;
}

function write(file, holder) {
  file.truncateSync();
  file.seekSync(0, Deno.SeekMode.Start);
  file.writeSync(new TextEncoder().encode(JSON.stringify(holder)));
}

function readHolder(path) {
  try {
    return JSON.parse(Deno.readTextFileSync(path));
  } catch {
    return { uuid: null, name: null, pid: null, host: null, access: null, since: null, alive: null };
  }
}

/** The number of a process's descriptor on a file. */
function descriptorOf(pid, path) {
  for (const { name } of Deno.readDirSync(`/proc/${pid}/fd`)) {
    try {
      if (Deno.readLinkSync(`/proc/${pid}/fd/${name}`) === path) return Number(name);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
  throw new Error(`process ${pid} does not have ${path} open`);
}

/** Whether a process holds the flock on a file: true, false, or null for "not known". */
function holds(pid, path) {
  try {
    return /^lock:.*FLOCK/m.test(Deno.readTextFileSync(`/proc/${pid}/fdinfo/${descriptorOf(pid, path)}`));
  } catch (error) {
    return error instanceof Deno.errors.PermissionDenied ? null : false;
  }
}

let libc;

/** flock(2) in another process's descriptor, by pidfd_open(2) and pidfd_getfd(2). Whether it could be done. */
function steer(pid, descriptor, operation) {
  libc ??= Deno.dlopen("libc.so.6", {
    syscall: { parameters: ["i64", "i64", "i64", "i64"], result: "i64" },
    flock: { parameters: ["i32", "i32"], result: "i32" },
    close: { parameters: ["i32"], result: "i32" },
  }).symbols;
  const [PIDFD_OPEN, PIDFD_GETFD] = [434n, 438n];
  const process = Number(libc.syscall(PIDFD_OPEN, BigInt(pid), 0n, 0n));
  const copy = Number(libc.syscall(PIDFD_GETFD, BigInt(process), BigInt(descriptor), 0n));
  const result = libc.flock(copy, operation);
  libc.close(copy);
  libc.close(process);
  return result === 0;
}
