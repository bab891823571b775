// Colours for the canvases, read from the style sheet so that they are defined once, and read again when the scheme changes.

const cache = new Map();
const dark = matchMedia("(prefers-color-scheme: dark)");

/** The value of a custom property, such as `--offered`. */
export function colour(name) {
  if (!cache.has(name)) cache.set(name, getComputedStyle(document.documentElement).getPropertyValue(name).trim());
  return cache.get(name);
}

export function onScheme(redraw) {
  dark.addEventListener("change", () => {
    cache.clear();
    redraw();
  });
}
