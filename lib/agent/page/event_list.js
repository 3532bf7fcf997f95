import { element, foreign, the, timeElement } from "./elements.js";
import { EVENTS, printable, timeText, wordsFor } from "./words.js";

/** As many as are kept on the page. */
const KEPT = 200;

const known = new Set();
let waiting = [];

/** Takes an event; those that come together are shown together, newest first. One that is known already is dropped. */
export function takeEvent(event) {
  // An agent that was started again may count from the beginning.
  const identity = `${event.id} ${event.time}`;
  if (known.has(identity)) return;
  known.add(identity);
  waiting.push(event);
  if (waiting.length === 1) setTimeout(showWaiting, 50);
}

function showWaiting() {
  const list = the("event-list");
  list.prepend(...waiting.reverse().map(eventItem));
  waiting = [];
  while (list.childElementCount > KEPT) list.lastElementChild.remove();
  for (const identity of known) {
    if (known.size <= 4 * KEPT) break;
    known.delete(identity);
  }
  list.hidden = false;
  the("no-events").hidden = true;
  // What had happened before the page was opened is not news to be read out.
  if (list.getAttribute("aria-live") === "off") {
    requestAnimationFrame(() => list.setAttribute("aria-live", "polite"));
  }
}

function eventItem({ type, time, message }) {
  const { words, tone } = wordsFor(EVENTS, type);
  return element(
    "li",
    { "data-tone": tone },
    element(
      "p",
      { class: "event-head" },
      element("span", { class: "badge", "data-tone": tone }, words),
      " ",
      timeElement(time, timeText(time)),
    ),
    element("p", { class: "message" }, foreign(printable(message))),
  );
}
