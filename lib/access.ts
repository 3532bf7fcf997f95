/** How a guest uses a resource: alone for writing, together with other writers, or for reading only. */
export type Access = "exclusive" | "shared" | "readonly";

/** All accesses, in the order in which documentation lists them. */
export const ACCESSES: readonly Access[] = ["exclusive", "shared", "readonly"];

/** The kernel's two kinds of flock(2): one holder, or many. */
export type LockMode = "exclusive" | "shared";

/** Which kind of flock stands for an access: only `exclusive` keeps everybody else out. */
export function lockModeOf(access: Access): LockMode {
  return access === "exclusive" ? "exclusive" : "shared";
}

/** Whether a guest may get `asked` while another guest has `held` on the same resource. */
export function isCompatible(held: Access, asked: Access): boolean {
  return COMPATIBLE[held][asked];
}

const COMPATIBLE: Record<Access, Record<Access, boolean>> = {
  exclusive: { exclusive: false, shared: false, readonly: false },
  shared: { exclusive: false, shared: true, readonly: true },
  readonly: { exclusive: false, shared: true, readonly: true },
};

/** Whether a text names an access. */
export function isAccess(text: unknown): text is Access {
  return typeof text === "string" && (ACCESSES as readonly string[]).includes(text);
}

/** The access that lets others have more: who has the stronger one has the weaker one as well. */
export function weakerOf(one: Access, other: Access): Access {
  return ACCESSES.indexOf(one) > ACCESSES.indexOf(other) ? one : other;
}
