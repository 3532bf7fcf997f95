/**
 * A migration as a model: both sides' commands, their QEMUs and a contender, one step at a time in every order.
 *
 * Modelled: each command of both sides, built from the very steps that the driver carries out, with a kill after each
 * step and repetition; `migrate run` beside them; the kernel's flocks, which end with their process; QEMU's source with
 * its final phase, `pre-switchover`, failure and cancellation, of which it resumes by itself, and its destination, with
 * and without -S; death of either process at any time; a stream that breaks; a user who pauses the guest or starts the
 * migration at any time; a contender that asks as every start does; tickets of earlier prepares.
 *
 * Taken for granted: the commands of one guest on one host run one at a time (the guest store sees to it; `migrate run` is
 * not held to it); a step that reads and writes one small file is one act; nobody but lockvisor sends `cont` to the source,
 * nor `cont` to a destination that came up paused before the source says `completed` or is dead, nor `migrate_cancel`.
 * Where that is not so, or QEMU's source can fail after its destination has run, no lock can help: see the tests of it.
 *
 * Not modelled: expiry and generations of tickets (no source starts anew here), notes, postcopy, hotplug while a guest
 * moves, hosts that are cut off from the lockspace, and how a cancel knows that the user has paused the guest.
 */

import type { LockMode } from "../../lib/access.ts";
import type { MovingKey } from "../../lib/lockspace/migration_steps.ts";
import { compile, type Compiled, perform, placeAt } from "./migration_commands.ts";
import { type Programs, programsOf } from "./migration_programs.ts";
import { HOPES, isAtRest, wrongIn } from "./migration_promises.ts";
import { type Scene, Ways } from "./migration_scene.ts";
import {
  decode,
  Destination,
  DestinationRecord,
  encode,
  guestAlone,
  Offer,
  settle,
  Source,
  type State,
  Ticket,
} from "./migration_state.ts";
import { contender, destinationQemu, sourceQemu } from "./migration_surroundings.ts";
import type { Model } from "./state_search.ts";

/** The keys of the guest of a scene. */
export function keysOf({ modes }: Pick<Scene, "modes">): MovingKey[] {
  return modes.guest.map((mode: LockMode, index): MovingKey => ({ key: `${index + 1}`, mode }));
}

/** A model that remembers what it has done. */
export interface MigrationModel extends Model {
  /** The instructions of the commands, and whether each was carried out in any state. */
  instructions(): { text: string; done: boolean }[];
}

/** The model of a scene, of the commands as they are or as a mutant has them. */
export function migrationModel(
  scene: Scene,
  change: (programs: Programs) => Programs = (same) => same,
): MigrationModel {
  const programs = change(programsOf(keysOf(scene)));
  const source = compile("source", programs.source);
  const destination = compile("destination", programs.destination);
  const runner = compile("runner", [{ command: "migrate run", instructions: programs.runner }]);
  return {
    initial: [guestAlone(Source.running), guestAlone(Source.paused)].map(encode),
    next(code) {
      const ways = new Ways(code);
      sourceCommands(ways, source, scene);
      destinationCommands(ways, destination, scene);
      if (scene.driver === "migrate run") runnerCommand(ways, runner, scene);
      sourceQemu(ways, scene);
      destinationQemu(ways, scene);
      contender(ways, scene);
      return ways.found;
    },
    wrong: (code) => wrongIn(decode(code)),
    atRest: (code) => isAtRest(decode(code)),
    hopes: HOPES,
    instructions: () =>
      [source, destination, runner].flatMap(({ side, places, performed }) =>
        places.map(({ command, instruction }, index) => ({
          text: `${side}, ${command}, place ${index + 1}: ${instruction.step}`,
          done: performed.has(index + 1),
        }))
      ),
  };
}

function sourceCommands(ways: Ways, compiled: Compiled, scene: Scene): void {
  const go = (at: number) => goOn(ways, compiled, at, scene, (state, place) => state.sourceAt = place);
  if (ways.state.sourceAt === 0) compiled.starts.forEach(go);
  else {
    go(ways.state.sourceAt);
    ways.add("harmful", (state) => {
      state.sourceAt = 0;
      return `source: ${placeAt(compiled, ways.state.sourceAt).command} is killed`;
    });
  }
}

function destinationCommands(ways: Ways, compiled: Compiled, scene: Scene): void {
  const { state: before } = ways;
  const to = (state: State, place: number) => state.destinationAt = place;
  if (before.destinationAt === 0) {
    for (const at of compiled.starts) {
      if (placeAt(compiled, at).command !== "in") goOn(ways, compiled, at, scene, to);
      else if (
        before.destination === Destination.dead && before.destinationRecord !== DestinationRecord.running
      ) {
        for (const ticket of [Ticket.current, Ticket.old]) {
          for (const held of heldStarts(before, scene)) {
            goOn(ways, compiled, at, scene, to, (state) => {
              state.destination = Destination.starting;
              state.ticket = ticket;
              state.startsHeld = held;
            });
          }
        }
      }
    }
    return;
  }
  goOn(ways, compiled, before.destinationAt, scene, to);
  if (before.destination === Destination.starting) return; // its crash is that process's death
  ways.add("harmful", (state) => {
    state.destinationAt = 0;
    return `destination: ${placeAt(compiled, before.destinationAt).command} is killed`;
  });
}

/** `migrate run` starts its destination with -S; users, and whoever uses its ticket once more, may or may not. */
function heldStarts({ offers }: State, { driver }: Scene): readonly number[] {
  return driver === "migrate run" && !offers.includes(Offer.taken) ? [1] : [0, 1];
}

function runnerCommand(ways: Ways, compiled: Compiled, scene: Scene): void {
  const at = ways.state.runnerAt;
  goOn(ways, compiled, at === 0 ? 1 : at, scene, (state, place) => state.runnerAt = place);
  if (at === 0) return;
  ways.add("harmful", (state) => {
    state.runnerAt = 0;
    return "migrate run is killed";
  });
}

/** One instruction of a command. One that refuses at its first look has not happened. */
function goOn(
  ways: Ways,
  compiled: Compiled,
  at: number,
  scene: Scene,
  to: (state: State, place: number) => void,
  prepare: (state: State) => void = () => {},
): void {
  const starts = compiled.starts.includes(at);
  const state = decode(ways.code);
  prepare(state);
  const { text, goesOn } = perform(compiled, at, state, scene);
  if (starts && goesOn === 0) return;
  if (goesOn === "waits") {
    ways.add("helpful", (state) => {
      to(state, 0);
      return `${text}, and gives up after a while`;
    });
    return;
  }
  to(state, goesOn);
  ways.found.push({ to: encode(settle(state)), text, kind: "helpful" });
}
