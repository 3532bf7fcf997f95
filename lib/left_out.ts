/**
 * Thrown by what stands in the place of a module that was left out of the start part of the program. Whoever meets it has
 * locked and written nothing yet: the whole program then begins anew with the same command line.
 */
export class LeftOut extends Error {
  override readonly name = "LeftOut";
}
