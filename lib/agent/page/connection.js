import { the } from "./elements.js";
import { ageText, timeText } from "./words.js";

/** How long to wait before another attempt that the browser does not make by itself, in milliseconds. */
const AGAIN_MS = 3000;

/**
 * What is known of the way to the agent. `stream` is the event stream: `lost` when it has just ended, `failed` when
 * another attempt did not succeed either.
 */
const link = { stream: "opening", reading: "none yet", readAt: null };

/** Shows the state of the connection, in words that are read out when they change. */
export function showConnection() {
  const [state, words] = connectionState(link);
  const line = the("connection");
  if (line.dataset.state !== state) {
    line.dataset.state = state;
    the("connection-state").textContent = words;
    the("notices").querySelector(".unreachable")?.remove();
    if (state === "unreachable") {
      const notice = document.createElement("p");
      notice.className = "notice unreachable";
      notice.textContent = link.readAt === null
        ? "The agent does not answer. The locks do not depend on it: the guests hold them themselves."
        : "The agent does not answer: what you see may be out of date. The locks do not depend on it: the guests " +
          "hold them themselves.";
      the("notices").append(notice);
    }
  }
  const age = link.readAt === null
    ? ""
    : `as of ${timeText(new Date(link.readAt).toISOString())}, ${ageText(Date.now() - link.readAt)}`;
  if (the("age").textContent !== age) the("age").textContent = age;
}

/** The state and its words, as a function of what is known. */
export function connectionState({ stream, reading }) {
  if (reading === "failed" || stream === "failed") return ["unreachable", "Cannot reach the agent"];
  if (stream === "lost") return ["reconnecting", "Reconnecting…"];
  if (stream === "opening" || reading === "none yet") return ["connecting", "Connecting…"];
  return ["live", "Live"];
}

/** Notes how reading the guests went. */
export function noteReading(outcome) {
  link.reading = outcome;
  if (outcome === "done") link.readAt = Date.now();
  showConnection();
}

/**
 * Follows the event stream for as long as the page is open.
 * @param types the types of events to listen to
 * @param onEvent is given each event
 * @param onOpen is called whenever the stream is there, at first or again
 */
export function followEvents(types, { onEvent, onOpen }) {
  const source = new EventSource("/v1/events?last=50");
  for (const type of types) source.addEventListener(type, ({ data }) => onEvent(JSON.parse(data)));
  source.addEventListener("open", () => {
    link.stream = "open";
    showConnection();
    onOpen();
  });
  source.addEventListener("error", () => {
    link.stream = link.stream === "open" ? "lost" : "failed";
    showConnection();
    // The browser tries again by itself, except after an answer that is no event stream.
    if (source.readyState !== EventSource.CLOSED) return;
    setTimeout(() => followEvents(types, { onEvent, onOpen }), AGAIN_MS);
  });
}
