// What runs inside of the page, to see what a person sees. Each function stands alone: only its text gets there.

/** How far the page is wider than the window, in CSS pixels, and what sticks out. */
export function overflow() {
  const width = document.documentElement.clientWidth;
  const scrolls = (element) => ["auto", "scroll", "hidden"].includes(getComputedStyle(element).overflowX);
  const isInScroller = (element) => {
    for (let each = element.parentElement; each !== null; each = each.parentElement) {
      if (scrolls(each)) return true;
    }
    return false;
  };
  const out = [...document.querySelectorAll("body *")].filter((element) =>
    element.getBoundingClientRect().right > width + 0.5 && !isInScroller(element)
  );
  return {
    pixels: document.documentElement.scrollWidth - width,
    out: out.map((element) => `${element.tagName} ${element.className} ${element.textContent.slice(0, 40)}`),
  };
}

/** The texts whose contrast with what is behind them is below a ratio (WCAG 2.2, 1.4.3), and how many were looked at. */
export function lowContrast(ratio) {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = ([red, green, blue]) => {
    const linear = [red, green, blue].map((value) =>
      value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4
    );
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const contrast = (one, other) => {
    const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const behind = (element) => {
    for (let each = element; each !== null; each = each.parentElement) {
      const colour = rgba(getComputedStyle(each).backgroundColor);
      if (colour[3] === 255) return colour;
      if (colour[3] > 0) throw new Error(`half transparent: ${each.className}`);
    }
    throw new Error("nothing is behind it");
  };
  const texts = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const { parentElement, data } = walker.currentNode;
    if (data.trim() === "" || !parentElement.checkVisibility({ visibilityProperty: true })) continue;
    texts.push({ data, element: parentElement, colour: getComputedStyle(parentElement).color });
  }
  for (const element of document.querySelectorAll("input[placeholder]")) {
    if (!element.checkVisibility()) continue;
    const colour = getComputedStyle(element, "::placeholder").color;
    texts.push({ data: element.placeholder, element, colour });
  }
  const low = texts.map(({ data, element, colour }) => ({
    text: data.trim().slice(0, 40),
    ratio: contrast(rgba(colour), behind(element)),
  })).filter((each) => each.ratio < ratio);
  return { looked: texts.length, low };
}

/** The colours of the page as a whole. */
export function pageColours() {
  const { color, backgroundColor } = getComputedStyle(document.body);
  return { color, backgroundColor };
}

/** Notes, from before the page's own script runs, how many guests were there each time that some were added. */
export function noteGrowth() {
  globalThis.growth = [];
  document.addEventListener("DOMContentLoaded", () => {
    const list = document.getElementById("guest-list");
    new MutationObserver(() => globalThis.growth.push(list.childElementCount)).observe(list, {
      childList: true,
    });
  });
}

/** What noteGrowth noted. */
export function growth() {
  return globalThis.growth;
}

/** Does what the page's policy forbids, and tells which of it was stopped. */
export async function breakPolicy(elsewhere) {
  const stopped = [];
  addEventListener("securitypolicyviolation", ({ effectiveDirective }) => stopped.push(effectiveDirective));
  const script = document.createElement("script");
  script.textContent = "globalThis.broken = true";
  document.body.append(script);
  const image = document.createElement("img");
  image.src = `${elsewhere}/image`;
  document.body.append(image);
  document.body.setAttribute("onclick", "globalThis.broken = true");
  document.body.click();
  await fetch(`${elsewhere}/data`).catch(() => {});
  await new Promise((resolve) => setTimeout(resolve));
  return { stopped: [...new Set(stopped)].sort(), broken: "broken" in globalThis };
}

/** Waits until what has come into sight is laid out. */
export function painted() {
  return new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
}

/** The outline of what has the focus, and what it is. */
export function focused() {
  const element = document.activeElement;
  const { outlineStyle, outlineWidth } = getComputedStyle(element);
  return { text: element.textContent.trim(), id: element.id, outline: `${outlineWidth} ${outlineStyle}` };
}
