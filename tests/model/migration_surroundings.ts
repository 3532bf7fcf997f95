import { contend } from "./migration_commands.ts";
import type { Scene, Ways } from "./migration_scene.ts";
import {
  ALL_SLOTS,
  canArrive,
  Destination,
  DestinationRecord,
  endDestination,
  endSource,
  isSending,
  Link,
  runDestination,
  runSource,
  Source,
  SourceRecord,
  type State,
  Stream,
} from "./migration_state.ts";

/** What the source's QEMU does, and what is done to it. */
export function sourceQemu(ways: Ways, scene: Scene): void {
  const { source, stream, link, sent, destination, sourceRecord } = ways.state;
  if (source === Source.dead) {
    if (sourceRecord === SourceRecord.running) {
      ways.add("helpful", (state) => {
        state.sourceRecord = SourceRecord.none;
        return "source: attach removes the record of a dead guest";
      });
    }
    return;
  }
  ways.add("harmful", (state) => {
    endSource(state);
    return "the source's QEMU is killed";
  });
  if (source === Source.running) {
    ways.add("harmful", (state) => {
      state.source = Source.paused;
      state.pausedByUser = 1;
      return "the user pauses the source's guest";
    });
  }
  const fresh = destination === Destination.inmigrate && link === Link.none;
  if (!isSending(ways.state) && fresh) {
    ways.add("harmful", (state) => {
      state.stream = Stream.active;
      state.link = state.sourceStale === 1 ? Link.stale : Link.good;
      return "the source's QEMU is told to migrate";
    });
  }
  const cut = !canArrive(ways.state);
  if (isSending(ways.state) && !cut && sent === 0) {
    ways.add("harmful", (state) => {
      state.link = Link.broken;
      return "the stream breaks";
    });
  }
  if (stream === Stream.active) {
    ways.add("helpful", (state) => {
      if (cut) {
        state.stream = Stream.ended;
        return "the source's QEMU finds the stream broken";
      }
      stopForSwitchover(state, Stream.final);
      return "the source's QEMU stops the guest for the switchover";
    });
    if (!cut) {
      ways.add("helpful", (state) => {
        stopForSwitchover(state, Stream.preSwitchover);
        return "the source's QEMU stops the guest, and waits before the switchover";
      });
    }
  }
  if (stream === Stream.preSwitchover) {
    ways.add("harmful", (state) => {
      state.stream = Stream.final;
      return "the source's QEMU is told to go on with the switchover";
    });
  }
  if (stream === Stream.final) finalPhase(ways, cut, scene);
}

function stopForSwitchover(state: State, stream: State["stream"]): void {
  state.stream = stream;
  state.resumes = state.source === Source.running ? 1 : 0;
  state.source = Source.final;
}

function finalPhase(ways: Ways, cut: boolean, { failsOnceSent, failedWhilePaused }: Scene): void {
  const { sent } = ways.state;
  if (sent === 0 && !cut) {
    ways.add("helpful", (state) => {
      state.sent = 1;
      return "the source's QEMU has sent everything";
    });
  }
  if (sent === 1) {
    ways.add("helpful", (state) => {
      state.stream = Stream.completed;
      state.source = Source.postmigrate;
      return "the source's QEMU says completed";
    });
  }
  const fails = sent === 0 ? cut : failsOnceSent === "late" && ways.state.destination === Destination.dead;
  if (!fails) return;
  const fail = (then: (state: State) => string) =>
    ways.add("helpful", (state) => {
      state.stream = Stream.ended;
      return `the source's QEMU says failed, and ${then(state)}`;
    });
  if (ways.state.resumes === 1) {
    fail((state) => {
      runSource(state);
      return "resumes the guest by itself";
    });
  } else {
    fail((state) => {
      state.source = Source[failedWhilePaused];
      return `calls the guest ${failedWhilePaused}, which was paused`;
    });
  }
}

/** What the destination's QEMU does, and what is done to it. */
export function destinationQemu(ways: Ways, { driver, continuesByHand }: Scene): void {
  const { destination, destinationRecord, sent, resumes, startsHeld, link, source, stream } = ways.state;
  if (destination === Destination.dead) {
    if (destinationRecord === DestinationRecord.running) {
      ways.add("helpful", (state) => {
        state.destinationRecord = DestinationRecord.none;
        return "destination: attach removes the record of a dead guest";
      });
    }
    return;
  }
  const waitsInVain = destination === Destination.inmigrate && link === Link.broken;
  ways.add(waitsInVain ? "helpful" : "harmful", (state) => {
    endDestination(state);
    return waitsInVain
      ? "the destination's QEMU exits, as its stream is broken"
      : "the destination's process is killed";
  });
  if (canArrive(ways.state) && sent === 1) {
    ways.add("helpful", (state) => {
      if (resumes === 1 && startsHeld === 0) {
        runDestination(state);
        return "the destination's QEMU has got everything, and runs";
      }
      state.destination = Destination.paused;
      return "the destination's QEMU has got everything, and is paused";
    });
  }
  if (destination !== Destination.paused) return;
  const complete = destinationRecord === DestinationRecord.running;
  const seenCompleted = source === Source.dead || stream === Stream.completed;
  if (complete || (driver === "user" && (seenCompleted || continuesByHand === "anything"))) {
    ways.add("harmful", (state) => {
      runDestination(state);
      return "the user continues the destination's guest";
    });
  }
}

/** Another guest that wants the same keys. */
export function contender(ways: Ways, { modes }: Scene): void {
  const { contender: held } = ways.state;
  if (held > 0) {
    ways.add("helpful", (state) => {
      state.contender = 0;
      return held === ALL_SLOTS ? "the contender ends" : "the contender is killed";
    });
  }
  if (held === ALL_SLOTS) return;
  ways.add(
    "harmful",
    (state) =>
      contend(state, modes) === "granted"
        ? `the contender gets slot ${held % 2 === 0 ? "a" : "b"} of key ${(held >> 1) + 1}${
          held + 1 === ALL_SLOTS ? ", and runs" : ""
        }`
        : "the contender is refused, and gives back what it has",
  );
}
