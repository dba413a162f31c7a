// Text below a contrast of 4.5:1 (WCAG 2.2, 1.4.3) and controls without a name, of what is visible now.
() => {
  const channel = (value) => (value / 255 <= 0.03928 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4);
  const luminance = (colour) => {
    const [r, g, b] = colour.match(/[\d.]+/g).slice(0, 3).map((value) => channel(Number(value)));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (!/, 0\)$/.test(colour) && !colour.startsWith("color(")) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const faults = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || !node.checkVisibility() || node.closest(".unseen, .skip, script, noscript")) continue;
    const [one, other] = [luminance(getComputedStyle(node).color), luminance(ground(node))];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (ratio < 4.5) faults.push([node.className, walk.currentNode.data.slice(0, 30), ratio]);
  }
  for (const node of document.querySelectorAll("button, input, select, summary")) {
    const named = node.textContent.trim() || node.getAttribute("aria-label") || (node.labels && node.labels.length);
    if (!named) faults.push(["no name", node.outerHTML.slice(0, 80), 0]);
  }
  return faults;
}
