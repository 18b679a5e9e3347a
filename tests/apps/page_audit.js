// What a page's people need, measured in the page itself: `audit()` gives faults in words.

function rgba(text) {
  const parts = text.match(/[\d.]+/g).map(Number);
  return text.startsWith("color(srgb") ? [...parts.slice(0, 3).map((part) => 255 * part), parts[3] ?? 1] : [...parts.slice(0, 3), parts[3] ?? 1];
}

function over([r, g, b, a], [R, G, B]) {
  return [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a)];
}

/** Relative luminance of WCAG 2. */
function luminance(color) {
  const [r, g, b] = color.map((part) => (part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function ratio(one, other) {
  const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}

/** What lies behind an element, and how much of it is seen through: colors of the ancestors, from the page upwards. */
function painted(element) {
  const line = [];
  for (let each = element; each; each = each.parentElement) line.unshift(getComputedStyle(each));
  let behind = [255, 255, 255], opacity = 1;
  for (const style of line) {
    opacity *= Number(style.opacity);
    const [r, g, b, a] = rgba(style.backgroundColor);
    behind = over([r, g, b, a * opacity], behind);
  }
  const [r, g, b, a] = rgba(line.at(-1).color);
  return { behind, text: over([r, g, b, a * opacity], behind) };
}

function isShown(element) {
  return element.checkVisibility({ visibilityProperty: true }) && element.getBoundingClientRect().width > 0;
}

function named(element) {
  return `${element.tagName.toLowerCase()}${element.id ? `#${element.id}` : ""} "${(element.textContent || element.value || "").trim().slice(0, 30)}"`;
}

/** Texts below 4.5:1; those of disabled controls are exempt (WCAG 1.4.3). */
function contrastFaults() {
  const texts = [...document.querySelectorAll("body *")].filter(
    (element) =>
      isShown(element) && !element.closest(":disabled, script, svg") &&
      ([...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.textContent.trim()) || element.matches("input:not([type=radio]), select, textarea")),
  );
  return {
    count: texts.length,
    faults: texts.flatMap((element) => {
      const { behind, text } = painted(element);
      const found = ratio(text, behind);
      return found < 4.5 ? [`${named(element)}: ${found.toFixed(2)}:1`] : [];
    }),
  };
}

/** Controls that a finger does not hit: less than 24 CSS pixels high or wide (WCAG 2.5.8). */
function targetFaults() {
  const targets = [...document.querySelectorAll("a, button, input, select, textarea")].filter(isShown).map((element) => element.closest("label") ?? element);
  return {
    count: targets.length,
    faults: targets.flatMap((element) => {
      const { width, height } = element.getBoundingClientRect();
      return Math.min(width, height) < 24 ? [`${named(element)}: ${width} x ${height}`] : [];
    }),
  };
}
