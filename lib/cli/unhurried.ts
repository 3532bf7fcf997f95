/**
 * The parts of the command line that the start of a guest does not need. All of them are one module, read when the first
 * is asked for: each further file of the program would cost a load.
 */
export { COMMANDS } from "./commands.ts";
export { commandHelp, groupHelp, programHelp } from "./help.ts";
