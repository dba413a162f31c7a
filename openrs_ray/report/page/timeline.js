// The timeline: a row of bars for each process, and how many completions an engine had in flight. Drag to move, wheel or pinch to
// zoom, a click for one bar; by keyboard the same.
"use strict";

page.timeline = () => {
  const {el, format} = page;
  const [ROW, GAP, HEAD, AREA, AXIS] = [15, 10, 18, 40, 22];
  const LONGEST = 40; // rows of the table
  let data = null;
  let view = [0, 1];
  let height = 100;
  let hits = [];
  let chosen = null;

  const canvas = el("canvas", {});
  const box = el("div", {
    class: "timeline", tabindex: "0", role: "group", "aria-roledescription": "timeline", "aria-label": "Timeline of the last steps",
    onkeydown: keys, onwheel: wheel, onpointerdown: down, onpointermove: move, onpointerup: up, onpointercancel: up, onpointerleave: left,
  }, canvas);
  const told = el("p", {class: "told", role: "status"});
  const legend = el("p", {class: "legend soft"});
  const details = el("details", {ontoggle: fillTable}, el("summary", {}, "Table of the longest spans in view"));
  const tool = (text, label, work) => el("button", {type: "button", class: "plain", "aria-label": label, onclick: work}, text);
  const node = el("div", {}, el("div", {class: "row"},
    tool("−", "Zoom out", () => zoom(2)), tool("+", "Zoom in", () => zoom(0.5)),
    tool("←", "Earlier", () => shift(-0.3)), tool("→", "Later", () => shift(0.3)), tool("All", "Show all", all), legend), box, told, details);

  // The colours of the stages above; what belongs to a stage has its colour.
  const COLOURS = {
    step: 6, take: 0, judge: 4, train: 1, forward_backward: 1, optimizer: 1, reference: 1, pack: 1, push: 2, begin_push: 2, end_push: 2,
    send_bucket: 2, pack_bucket: 2, receive_bucket: 2, receive: 2, load: 2, finish_load: 2, prove: 2, probe: 2, score: 2, join: 2,
    write: 3, record: 3, save: 3, export: 3, evaluate: 7,
  };
  const colourOf = (name) => page.seriesColour(name in COLOURS ? COLOURS[name] : 5);

  const end = () => data.steps[data.steps.length - 1][2];

  function all() {
    view = [0, end()];
    changed();
  }

  function zoom(factor, at) {
    const middle = at === undefined ? (view[0] + view[1]) / 2 : at;
    const wide = Math.min(end(), Math.max(0.5, (view[1] - view[0]) * factor));
    const share = (middle - view[0]) / (view[1] - view[0]);
    place(middle - share * wide, wide);
  }

  function shift(share) {
    const wide = view[1] - view[0];
    place(view[0] + share * wide, wide);
  }

  function place(start, wide) {
    const from = Math.max(0, Math.min(start, end() - wide));
    view = [from, from + wide];
    changed();
  }

  function changed() {
    draw();
    if (details.open) fillTable();
  }

  const toX = (ms, wide) => ((ms - view[0]) / (view[1] - view[0])) * wide;
  const toMs = (x) => view[0] + (x / box.clientWidth) * (view[1] - view[0]);

  function draw() {
    const wide = box.clientWidth;
    if (!data || !wide) return;
    const ratio = window.devicePixelRatio || 1;
    height = AXIS + data.processes.reduce((sum, each) => sum + HEAD + (each.running ? AREA : 0) + each.rows * ROW + GAP, 0);
    canvas.width = Math.round(wide * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.height = `${height}px`;
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    pen.font = "11px system-ui, sans-serif";
    pen.textBaseline = "middle";
    hits = [];
    steps(pen, wide);
    let top = AXIS;
    for (const each of data.processes) top = track(pen, each, top, wide);
  }

  function steps(pen, wide) {
    pen.fillStyle = page.colour("soft");
    pen.strokeStyle = page.colour("line");
    let free = -Infinity;
    for (const [number, start, stop] of data.steps) {
      const x = Math.round(toX(start, wide)) + 0.5;
      if (toX(stop, wide) < 0 || x > wide) continue;
      pen.beginPath();
      pen.moveTo(x, 0);
      pen.lineTo(x, height);
      pen.stroke();
      const at = Math.max(2, x + 4);
      if (at < free) continue;
      const text = `step ${number}, ${format.seconds((stop - start) / 1000)}`;
      pen.fillText(text, at, AXIS / 2);
      free = at + pen.measureText(text).width + 8;
    }
  }

  function track(pen, each, top, wide) {
    pen.fillStyle = page.colour("ink");
    pen.fillText(each.process, 2, top + HEAD / 2);
    let next = top + HEAD;
    if (each.running) {
      area(pen, each, next, wide);
      next += AREA;
    }
    for (const bar of each.bars) {
      const x = toX(bar[0], wide);
      const width = Math.max(1, toX(bar[0] + bar[1], wide) - x);
      if (x + width < 0 || x > wide) continue;
      drawBar(pen, each, bar, x, next + bar[3] * ROW, width);
    }
    return next + each.rows * ROW + GAP;
  }

  function area(pen, each, top, wide) {
    const {t, n} = each.running;
    const most = Math.max(1, ...n);
    pen.beginPath();
    pen.moveTo(toX(t[0], wide), top + AREA - 4);
    t.forEach((ms, at) => {
      pen.lineTo(toX(ms, wide), top + (AREA - 4) * (1 - n[at] / most));
    });
    pen.lineTo(toX(t[t.length - 1], wide), top + AREA - 4);
    pen.closePath();
    pen.fillStyle = `${page.seriesColour(0)}55`;
    pen.fill();
    pen.fillStyle = page.colour("soft");
    pen.fillText(`completions in flight, at most ${format.number(most)}`, 2 + pen.measureText(`${each.process}  `).width, top - HEAD / 2);
  }

  function drawBar(pen, each, bar, x, y, width) {
    const from = Math.max(x, -2);
    const wide = Math.min(x + width, box.clientWidth + 2) - from;
    pen.fillStyle = colourOf(data.names[bar[2]]);
    pen.globalAlpha = chosen === bar ? 1 : 0.85;
    pen.fillRect(from, y, Math.max(1, wide - 0.5), ROW - 3);
    pen.globalAlpha = 1;
    if (chosen === bar) {
      pen.strokeStyle = page.colour("ink");
      pen.strokeRect(from + 0.5, y + 0.5, Math.max(1, wide - 1.5), ROW - 4);
    }
    const name = data.names[bar[2]];
    if (wide > 34 && pen.measureText(name).width < wide - 6) {
      pen.fillStyle = page.colour("ground");
      pen.fillText(name, from + 4, y + (ROW - 3) / 2 + 0.5);
    }
    hits.push([from, y, Math.max(3, wide), bar, each.process]);
  }

  function find(event) {
    const {left: x0, top: y0} = box.getBoundingClientRect();
    const [x, y] = [event.clientX - x0, event.clientY - y0];
    return hits.findLast(([from, top, wide]) => x >= from && x <= from + wide && y >= top && y <= top + ROW - 2);
  }

  function tell(hit) {
    chosen = hit ? hit[3] : null;
    told.textContent = hit
      ? `${hit[4]}: ${data.names[hit[3][2]]}, ${format.seconds(hit[3][1] / 1000)}${hit[3][4] ? ` (${hit[3][4]})` : ""}`
      : "Point at a bar, or drag to move; Ctrl and the wheel zoom.";
  }

  // ---- pointer: one moves, two pinch

  const pointers = new Map();
  let moved = false;

  function down(event) {
    pointers.set(event.pointerId, event.clientX);
    moved = false;
    if (event.pointerType === "mouse") box.setPointerCapture(event.pointerId);
  }

  function move(event) {
    if (!data) return;
    if (!pointers.has(event.pointerId)) {
      const hit = find(event);
      if ((hit ? hit[3] : null) !== chosen) {
        tell(hit);
        draw();
      }
      return;
    }
    const before = pointers.get(event.pointerId);
    const distance = event.clientX - before;
    if (Math.abs(distance) < 2) return;
    moved = true;
    if (pointers.size === 1) {
      shift(-distance / box.clientWidth);
    } else {
      const other = [...pointers].find(([id]) => id !== event.pointerId)[1];
      const apart = (x) => Math.max(10, Math.abs(x - other));
      zoom(apart(before) / apart(event.clientX), toMs((event.clientX + other) / 2 - box.getBoundingClientRect().left));
    }
    pointers.set(event.pointerId, event.clientX);
  }

  function up(event) {
    pointers.delete(event.pointerId);
    if (!moved && event.type === "pointerup") {
      tell(find(event));
      draw();
    }
  }

  function left(event) {
    if (event.pointerType !== "mouse") pointers.delete(event.pointerId);
  }

  // The plain wheel scrolls the page, as everywhere.
  function wheel(event) {
    if (!event.ctrlKey && !event.metaKey && !event.shiftKey) return;
    event.preventDefault();
    const at = toMs(event.clientX - box.getBoundingClientRect().left);
    if (event.shiftKey && !event.ctrlKey) shift(Math.sign(event.deltaY || event.deltaX) * 0.1);
    else zoom(event.deltaY > 0 ? 1.25 : 0.8, at);
  }

  function keys(event) {
    const work = {
      "+": () => zoom(0.5), "=": () => zoom(0.5), "-": () => zoom(2), ArrowLeft: () => shift(-0.2), ArrowRight: () => shift(0.2),
      Home: () => place(0, view[1] - view[0]), End: () => place(end(), view[1] - view[0]), 0: all, Escape: all,
    }[event.key];
    if (!work || !data) return;
    event.preventDefault();
    work();
    page.say(`${format.seconds(view[0] / 1000)} to ${format.seconds(view[1] / 1000)} of ${format.seconds(end() / 1000)}`);
  }

  function fillTable() {
    if (!details.open || !data) return;
    while (details.children.length > 1) details.lastChild.remove();
    const rows = data.processes
      .flatMap((each) => each.bars.map((bar) => [each.process, bar]))
      .filter(([, bar]) => bar[0] < view[1] && bar[0] + bar[1] > view[0])
      .sort((a, b) => b[1][1] - a[1][1])
      .slice(0, LONGEST)
      .map(([process, bar]) => [data.names[bar[2]], process, format.seconds(bar[0] / 1000), format.seconds(bar[1] / 1000), bar[4]]);
    details.append(page.table(["span", "process", "begins at", "takes", "of"], rows, {left: [1, 4], label: "Longest spans in view"}));
  }

  let width = 0;
  new ResizeObserver(() => {
    if (box.clientWidth === width) return;
    width = box.clientWidth;
    draw();
  }).observe(box);
  document.addEventListener("recolour", draw);

  return {
    node,
    update(next) {
      const whole = !data || (view[0] === 0 && view[1] === end());
      data = next;
      chosen = null;
      view = whole ? [0, end()] : [Math.min(view[0], end()), Math.min(view[1], end())];
      if (view[1] - view[0] < 0.5) view = [0, end()];
      page.refill(legend, data.left_out ? `the ${format.number(data.left_out)} shortest spans are left out` : null);
      tell(null);
      changed();
    },
  };
};
