/** The element of the page with an id. */
export const the = (id) => document.getElementById(id);

/**
 * An element with attributes and content. Content is elements, or strings that become text and never markup: that is
 * the only way by which names get into this page.
 */
export function element(tag, attributes = {}, ...content) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...content);
  return made;
}

/** A name or message that somebody else chose; its direction of writing stays its own matter. */
export function foreign(text, attributes = {}) {
  return element("bdi", attributes, text);
}

/** A time in words, with the exact one for machines and as a tooltip. */
export function timeElement(iso, words) {
  return element("time", iso === null ? {} : { datetime: iso, title: iso }, words);
}

/** One of the pictures in the page's sprite; the words beside it carry the meaning. */
export function icon(name) {
  const space = "http://www.w3.org/2000/svg";
  const picture = document.createElementNS(space, "svg");
  picture.setAttribute("class", "icon");
  picture.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(space, "use");
  use.setAttribute("href", `#${name}`);
  picture.append(use);
  return picture;
}

/** Puts names in a row: all of them, the many behind a line that opens. */
export function nameList(names) {
  const few = names.length <= 6 ? names : names.slice(0, 5);
  const shown = few.flatMap((name, at) => [at === 0 ? "" : ", ", foreign(name, { class: "holder" })]);
  if (few === names) return shown;
  const rest = element("details", {}, element("summary", {}, `and ${names.length - few.length} more`));
  rest.addEventListener("toggle", () => {
    if (rest.childElementCount > 1) return;
    const items = names.slice(few.length).map((name) => element("li", {}, foreign(name)));
    rest.append(element("ul", { class: "names" }, ...items));
  });
  return [...shown, " ", rest];
}

/** Lets the browser paint and take input before more is done. */
export function breathe() {
  return new Promise((resolve) => setTimeout(resolve));
}
