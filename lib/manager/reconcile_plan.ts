import type { Access } from "../access.ts";
import type { Holder } from "../driver/contract.ts";

/** What became of one disk. */
export interface ReconciledDisk {
  name: string;
  /** What the guest has it with now; what it should have where that was refused. */
  access: Access;
  /**
   * - `locked`, `strengthened`, `weakened`, `released`: as the words say;
   * - `unprotected`: QEMU has it open, or writes it, and somebody else has it;
   * - `kept`: as it was; `unused`: stated by hand, and QEMU does not have it open;
   * - `failed`: could not be locked for another reason.
   */
  result: "locked" | "strengthened" | "weakened" | "released" | "unprotected" | "kept" | "unused" | "failed";
  /** Who has it, where it is unprotected; null where that cannot be seen. */
  holder?: Holder | null;
  /** Why it could not be locked. */
  reason?: string;
}
