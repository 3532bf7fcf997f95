import * as z from "zod";
import { EVENT_TYPES } from "../event.ts";
import { DISK_JOB_KINDS } from "../../manager/disk_job_record.ts";
import { GUEST_STATES } from "../../manager/guest_record.ts";

/*
 * What the agent's interface takes and gives. Requests are checked with these, and the OpenAPI document is made from
 * them.
 */

const access = z.enum(["exclusive", "shared", "readonly"]);
const disk = z.strictObject({
  path: z.string().min(1).max(4096).meta({ description: "an absolute path, or a URI" }),
  access: access.optional().meta({ description: "default: exclusive" }),
  format: z.string().min(1).max(64).optional().meta({ description: "the image's format; not used yet" }),
});
const lease = z.strictObject({
  lockspace: z.string().min(1).max(255),
  key: z.string().min(1).max(255),
  access: access.optional().meta({ description: "default: exclusive" }),
});
/** More than a guest can have, and little enough to be refused quickly. */
const MOST_RESOURCES = 1000;
const disks = z.array(disk).max(MOST_RESOURCES).optional();
const leases = z.array(lease).max(MOST_RESOURCES).optional();
const duration = z.string().regex(/^\d+(\.\d+)?(ms|s|m|h)?$/).meta({
  description: "a duration such as 500ms, 10s, 5m",
});

/** Disks and leases: at least one. */
export const resourcesBody = z.strictObject({ disks, leases }).refine(
  ({ disks, leases }) => (disks?.length ?? 0) + (leases?.length ?? 0) > 0,
  { error: "names no disk and no lease" },
);
export const pauseBody = z.strictObject({
  release: z.boolean().optional().meta({ description: "give the locks up until the guest resumes" }),
});
export const resumeBody = z.strictObject({
  acceptChanges: z.boolean().optional().meta({
    description: "also when somebody else has had a disk in between",
  }),
});
export const stopBody = z.strictObject({
  powerdown: z.boolean().optional().meta({ description: "ask the guest's operating system first" }),
  timeout: duration.optional().meta({ description: "default: 30s" }),
  killAfter: duration.optional().meta({ description: "default: 10s" }),
});
export const attachBody = z.strictObject({});
export const reconcileBody = z.strictObject({
  dryRun: z.boolean().optional().meta({ description: "tell what would be done, and change nothing" }),
});

export const locksQuery = z.strictObject({
  disk: z.string().min(1).max(4096).optional(),
  lease: z.string().min(3).max(600).optional().meta({ description: "LOCKSPACE:KEY" }),
}).refine(({ disk, lease }) => (disk === undefined) !== (lease === undefined), {
  error: "names one disk or one lease: ?disk=PATH or ?lease=LOCKSPACE:KEY",
});
export const eventsQuery = z.strictObject({
  last: z.string().regex(/^\d{1,4}$/).optional().meta({ description: "so many of the past first" }),
  after: z.string().max(64).optional().meta({
    description: "those after the event of this id, as the header Last-Event-ID",
  }),
});
export const noQuery = z.strictObject({});

const known = z.boolean().nullable();
const resource = z.object({ type: z.enum(["disk", "lease"]), name: z.string(), access });
const holder = z.object({
  uuid: z.string().nullable(),
  name: z.string().nullable(),
  pid: z.number().nullable(),
  host: z.string().nullable(),
  access: access.nullable(),
  since: z.string().nullable(),
  alive: known,
});
export const errorResult = z.object({
  error: z.looseObject({
    code: z.string().meta({ description: "as the exit statuses are called" }),
    message: z.string(),
    holder: holder.nullable().optional(),
  }),
});
export const guestResult = z.object({
  uuid: z.string(),
  name: z.string(),
  id: z.string().nullable(),
  state: z.enum(GUEST_STATES as [string, ...string[]]),
  plugin: z.string(),
  pid: z.number(),
  since: z.string(),
  resources: z.array(
    resource.extend({
      keys: z.array(z.string()),
      locked: known,
      unprotected: z.object({ holder: holder.nullable(), access: access.optional() }).optional().meta({
        description:
          "somebody else had it, and the guest goes without its lock (setting enforce, reconcile); with access: it uses it so, and its lock is for reading only",
      }),
    }),
  ),
  jobs: z.array(z.object({
    kind: z.enum(DISK_JOB_KINDS as [string, ...string[]]),
    disk: z.string(),
    target: z.string().nullable(),
  })).optional().meta({ description: "what QEMU does to its disks by lockvisor's commands" }),
  locks: z.object({ held: z.number(), unknown: z.number(), lost: z.number(), total: z.number() }),
});
export const guestsResult = z.object({
  guests: z.array(guestResult),
  error: errorResult.shape.error.optional(),
});
export const hotplugResult = z.object({
  resources: z.array(
    resource.extend({ result: z.enum(["lock", "held", "changed", "unprotected", "unlock", "not-held"]) }),
  ),
  warnings: z.array(z.string()),
});
const guestReference = z.object({ uuid: z.string(), name: z.string(), state: z.string() });
export const pauseResult = z.object({
  guest: guestReference,
  givenUp: z.array(z.object({ key: z.string(), mode: z.string(), generation: z.number() })),
  lockState: z.string().nullable(),
});
export const stopResult = z.object({
  guest: z.object({ uuid: z.string(), name: z.string().nullable(), pid: z.number().nullable() }),
  outcome: z.enum(["stopped", "already-stopped"]),
  by: z.string().nullable(),
  tookMs: z.number(),
  locks: z.object({ total: z.number(), held: z.literal(false).nullable() }),
});
export const attachResult = z.object({
  guests: z.array(z.looseObject({
    uuid: z.string(),
    name: z.string(),
    state: z.string(),
    pid: z.number(),
    carriers: z.array(z.object({ kind: z.string(), pid: z.number() })),
    locked: known,
    lost: z.array(resource),
    repairs: z.array(z.string()),
    warnings: z.array(z.string()),
  })),
});
export const reconcileResult = z.object({
  guest: z.object({ uuid: z.string(), name: z.string() }),
  dryRun: z.boolean(),
  source: z.enum(["qmp", "proc"]).nullable().meta({
    description: "who told what is open: QEMU, or the kernel; null where nothing was compared",
  }),
  skipped: z.string().nullable().meta({ description: "why nothing was compared" }),
  disks: z.array(z.object({
    name: z.string(),
    access,
    result: z.enum([
      "lock",
      "strengthen",
      "weaken",
      "release",
      "kept",
      "unused",
      "unprotected",
      "failed",
    ]),
    use: z.enum(["open", "open-otherwise", "not-known", "stated-shared"]).optional(),
    holder: holder.nullable().optional(),
    error: errorResult.shape.error.optional(),
  })),
  jobs: z.array(z.string()).meta({
    description: "jobs on disks whose commands were cut off, and what was done about each",
  }),
  warnings: z.array(z.string()),
});
const identities = z.array(z.object({ text: z.string(), key: z.string() }));
export const checkResult = z.object({
  granted: z.boolean(),
  resources: z.array(
    resource.extend({
      identities,
      verdict: z.enum(["free", "refused", "skipped"]),
      holders: z.array(holder),
    }),
  ),
});
export const inspectionResult = z.object({
  resource: z.object({ type: z.string(), name: z.string(), identities }),
  locked: known,
  generation: z.number().nullable(),
  holders: z.array(holder),
  unprotected: z.array(z.object({ uuid: z.string(), name: z.string(), pid: z.number(), access })).optional()
    .meta({
      description:
        "guests of this host that use it so without the lock that this needs, since somebody else had it",
    }),
});
export const eventResult = z.object({
  id: z.string(),
  time: z.string(),
  type: z.enum(EVENT_TYPES as [string, ...string[]]),
  guest: z.object({ uuid: z.string().nullable(), name: z.string(), pid: z.number().nullable() }).nullable(),
  resources: z.array(resource.extend({ access: access.nullable() })),
  holder: holder.nullable(),
  message: z.string(),
});
export const healthResult = z.object({
  status: z.enum(["ok", "late"]),
  version: z.string(),
  guests: z.number(),
  bereft: z.number().meta({ description: "guests that run without a lock that they should have" }),
});
