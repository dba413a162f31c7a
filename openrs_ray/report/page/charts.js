// Charts of figures by step: values under the pointer, zoom by dragging, the same by keyboard, and a table in place of the picture.
//
// page.chart(spec) -> {node, update(spec)}; spec = {
//   title, note, x: [steps], form: value -> text,
//   series: [{label, values, colour: place of a series' colour, low, high: [bounds of a band], dots}],
//   brief: true where the page's head has the labels,
//   marks: [steps to draw an upright line at], limit: {value, label}, expected: {points: [[step, low, high]], source}, stack: true where series add up
// }
"use strict";

page.chart = (() => {
  const HEIGHT = 190;
  const MOST_ROWS = 200;
  const FAR = 2.5; // times the largest value: a limit above is said, not drawn
  const all = new Set();
  let number = 0;
  let smoothing = 0; // weight of the past

  const known = (value) => value !== null && value !== undefined && !Number.isNaN(value);
  const faded = (hex, alpha) => `${hex}${Math.round(255 * alpha).toString(16).padStart(2, "0")}`;

  // Bounds at each x: straight lines between the points, nothing outside of them.
  function between(points, x, place) {
    return x.map((at) => {
      const after = points.findIndex((point) => point[0] >= at);
      if (after < 0 || (after === 0 && points[0][0] > at)) return null;
      if (after === 0) return points[0][place];
      const [a, b] = [points[after - 1], points[after]];
      return a[place] + ((b[place] - a[place]) * (at - a[0])) / (b[0] - a[0]);
    });
  }

  function largest(series) {
    let most = -Infinity;
    for (const each of series) for (const value of each.values) if (known(value) && value > most) most = value;
    return most;
  }

  // The data and the series of uPlot for a spec.
  function layers(spec) {
    const data = [spec.x];
    const series = [{}];
    const bands = [];
    const add = (values, options) => {
      data.push(values);
      series.push({spanGaps: true, points: {show: false}, ...options});
      return series.length - 1;
    };
    const hidden = {stroke: "transparent", width: 0, helper: true};
    if (spec.expected) {
      const low = add(between(spec.expected.points, spec.x, 1), hidden);
      const high = add(between(spec.expected.points, spec.x, 2), hidden);
      bands.push({series: [high, low], fill: () => faded(page.colour("soft"), 0.16)});
    }
    if (limited(spec)) {
      add(spec.x.map(() => spec.limit.value), {stroke: () => page.colour("soft"), width: 1, dash: [4, 4], helper: true});
    }
    const drawn = spec.stack ? stacked(spec.series) : spec.series;
    drawn.forEach((each) => {
      const ink = () => page.seriesColour(each.colour);
      if (each.low) {
        const low = add(each.low, {...hidden, show: !each.off});
        const high = add(each.high, {...hidden, show: !each.off});
        bands.push({series: [high, low], fill: () => faded(ink(), 0.14)});
      }
      if (spec.stack) {
        add(each.values, {
          stroke: ink, fill: ink, width: 0, show: !each.off, paths: uPlot.paths.bars({size: [0.9, 60], align: 0}),
        });
      } else {
        const dots = each.dots || spec.x.length === 1;
        const smooth = smoothing > 0 && !dots;
        if (smooth) add(each.values, {stroke: () => faded(ink(), 0.3), width: 1, show: !each.off, helper: true});
        add(smooth ? smoothed(each.values) : each.values, {stroke: ink, width: each.dots ? 1 : 1.6, dash: each.dots ? [2, 4] : [], show: !each.off, points: {show: dots, size: 6, fill: ink, stroke: ink}});
      }
    });
    return {data, series, bands};
  }

  // Sums from the bottom up; the highest is drawn first, so that each lower one covers its part of it.
  function stacked(series) {
    const sums = [];
    let below = null;
    for (const each of series.filter((one) => !one.off)) {
      below = each.values.map((value, place) => (value || 0) + (below ? below[place] : 0));
      sums.push({...each, values: below});
    }
    return sums.reverse();
  }

  // An exponential mean with its beginning corrected (Kingma and Ba, arXiv 1412.6980, section 3), over what is known.
  function smoothed(values) {
    let [sum, weight] = [0, 0];
    return values.map((value) => {
      if (!known(value)) return value;
      sum = smoothing * sum + (1 - smoothing) * value;
      weight = smoothing * weight + (1 - smoothing);
      return sum / weight;
    });
  }

  function limited(spec) {
    return spec.limit && known(spec.limit.value) && spec.limit.value <= FAR * largest(spec.series);
  }

  function axes(form) {
    const common = {
      stroke: () => page.colour("soft"),
      grid: {stroke: () => page.colour("line"), width: 1},
      ticks: {show: false},
      font: "11px system-ui, sans-serif",
    };
    return [
      {...common, size: 24, gap: 4, grid: {show: false}, values: (plot, marks) => marks.map((mark) => (Number.isInteger(mark) ? page.format.number(mark) : ""))},
      {...common, size: (plot, texts) => 12 + 6.4 * Math.max(3, ...(texts || []).map((text) => text.length)), gap: 4, values: (plot, marks) => marks.map((mark) => page.format.short(form(mark)))},
    ];
  }

  // The range of all charts, zoomed in any of them; null: everything.
  function zoomAll(min, max) {
    for (const each of all) {
      if (each.node.isConnected) each.zoom(min, max);
      else drop(each);
    }
  }

  function drop(each) {
    all.delete(each);
    if (each.plot) each.plot.destroy();
  }

  function chart(first) {
    const id = `chart-${++number}`;
    let spec = first;
    let plot = null;
    let at = null;

    const readout = page.el("div", {class: "readout"});
    const where = page.el("span", {class: "where soft"});
    const picture = page.el("div", {
      class: "plot", tabindex: "0", role: "group", "aria-roledescription": "chart", "aria-labelledby": `${id}-title`,
      "aria-describedby": `${id}-keys`, onkeydown: keys, onblur: () => point(null, false),
    });
    const note = page.el("p", {class: "note soft"});
    const details = page.el("details", {ontoggle: fillTable}, page.el("summary", {}, "Table"));
    const node = page.el("figure", {class: "chart"},
      page.el("figcaption", {}, page.el("span", {class: "name", id: `${id}-title`}, spec.title), where),
      readout, picture, page.el("span", {class: "unseen", id: `${id}-keys`}, "Arrow keys read values, plus and minus zoom, 0 shows all; a table follows."),
      note, details);

    function options(width) {
      const {series, bands} = layers(spec);
      return {
        width, height: spec.height || HEIGHT, series, bands,
        legend: {show: false},
        padding: [8, spec.x[spec.x.length - 1] >= 1000 ? 20 : 8, 0, 0],
        scales: {x: {time: false, range: horizontal}, y: {range: vertical}},
        axes: axes(spec.form),
        cursor: {
          y: false,
          drag: {x: true, y: false, dist: 4, setScale: false},
          sync: {key: "steps", filters: {pub: (kind) => kind === "mousemove" || kind === "mouseleave"}},
          bind: {dblclick: () => () => zoomAll(null, null)},
          points: {size: 7, show: (own, place) => (own.series[place].helper ? false : undefined)},
        },
        hooks: {
          setCursor: [(own) => point(own.cursor.idx, false)],
          setSelect: [selected],
          drawAxes: [upright],
        },
      };
    }

    // Behind the curves.
    function upright(own) {
      const {left, top, width: wide, height} = own.bbox;
      own.ctx.save();
      own.ctx.strokeStyle = page.colour("warn");
      own.ctx.setLineDash([2, 3]);
      for (const step of spec.marks || []) {
        const x = Math.round(own.valToPos(step, "x", true)) + 0.5;
        if (x < left || x > left + wide) continue;
        own.ctx.beginPath();
        own.ctx.moveTo(x, top);
        own.ctx.lineTo(x, top + height);
        own.ctx.stroke();
      }
      own.ctx.restore();
    }

    // Bars need half a step beside the first and the last.
    function horizontal(own, low, high) {
      const room = low === high ? 1 : spec.stack ? 0.5 : 0;
      return [low - room, high + room];
    }

    function vertical(own, low, high) {
      if (low === null || low === undefined) return [0, 1];
      const most = spec.form === page.format.share && high <= 1 ? 1.02 : Infinity;
      if (high - low <= 1e-6 * Math.abs(high)) { // rounding alone
        const half = Math.abs(low) / 10 || 1;
        return [low >= 0 ? Math.max(0, low - half) : low - half, Math.min(most, high + half)];
      }
      const room = 0.06 * (high - low);
      const zero = low >= 0 && low < 0.35 * high;
      return [spec.stack || zero ? 0 : low - room, Math.min(most, high + room)];
    }

    function selected(own) {
      const {left, width: wide} = own.select;
      if (wide > 4) zoomAll(own.posToVal(left, "x"), own.posToVal(left + wide, "x"));
      own.setSelect({left: 0, width: 0, top: 0, height: 0}, false);
    }

    function draw() {
      const width = Math.floor(picture.clientWidth);
      if (!width) return;
      if (plot) plot.destroy();
      plot = new uPlot(options(width), layers(spec).data, picture);
      plot.root.setAttribute("aria-hidden", "true");
      self.plot = plot;
      point(null, false);
    }

    function point(index, spoken) {
      at = index;
      const place = index === null || index === undefined ? lastKnown() : index;
      where.textContent = place === null ? "" : `step ${page.format.number(spec.x[place])}`;
      page.refill(readout, spec.series.map((each) => item(each, place)));
      if (spoken && place !== null) {
        page.say(`${spec.title}, step ${spec.x[place]}: ${spec.series.filter((each) => !each.off).map((each) => `${each.label} ${spec.form(valueAt(each, place))}`).join(", ")}`);
      }
    }

    function lastKnown() {
      return spec.x.length ? spec.x.length - 1 : null;
    }

    // A series with fewer points than the chart shows its last value.
    function valueAt(each, place) {
      let found = place;
      while (found > 0 && !known(each.values[found])) found -= 1;
      return place === null ? null : each.values[found];
    }

    function item(each, place) {
      const shown = spec.form(valueAt(each, place));
      const value = page.el("b", {}, shown);
      if (spec.series.length === 1) return page.el("span", {class: "item"}, value);
      const button = page.el("button", {
        type: "button", class: "item plain", "aria-pressed": String(!each.off), title: `Show or hide ${each.label}`, "aria-label": `${each.label} ${shown}`,
        onclick: () => {
          each.off = !each.off;
          draw();
          readout.querySelectorAll("button")[spec.series.indexOf(each)].focus();
        },
      }, page.swatch(each.colour), spec.brief ? null : [each.label, " "], value);
      return button;
    }

    function keys(event) {
      if (!plot || event.target !== picture) return;
      const count = spec.x.length;
      const now = at === null || at === undefined ? count - 1 : at;
      const step = {ArrowLeft: now - 1, ArrowRight: at === null ? now : now + 1, Home: 0, End: count - 1}[event.key];
      if (step !== undefined && count) {
        const index = Math.min(count - 1, Math.max(0, step));
        plot.setCursor({left: plot.valToPos(spec.x[index], "x"), top: 0}, false);
        point(index, true);
        at = index;
      } else if (event.key === "+" || event.key === "=") {
        zoomBy(0.5);
      } else if (event.key === "-") {
        zoomBy(2);
      } else if (event.key === "0" || event.key === "Escape") {
        zoomAll(null, null);
      } else {
        return;
      }
      event.preventDefault();
    }

    function zoomBy(factor) {
      const {min, max} = plot.scales.x;
      const middle = at === null || at === undefined ? (min + max) / 2 : spec.x[at];
      const half = Math.max(1, ((max - min) * factor) / 2);
      const ends = [spec.x[0], spec.x[spec.x.length - 1]];
      zoomAll(Math.max(ends[0], middle - half), Math.min(ends[1], middle + half));
    }

    function fillTable() {
      if (!details.open) return;
      while (details.children.length > 1) details.lastChild.remove();
      const every = Math.max(1, Math.ceil(spec.x.length / MOST_ROWS));
      const rows = [];
      for (let place = spec.x.length - 1; place >= 0; place -= every) {
        rows.unshift([page.format.number(spec.x[place]), ...spec.series.flatMap((each) => cells(each, place))]);
      }
      const head = ["step", ...spec.series.flatMap((each) => (each.low ? [each.label, "low", "high"] : [each.label]))];
      const caption = every > 1 ? `every ${every}th point` : null;
      details.append(page.table(head, rows, {label: `${spec.title} by step`, caption}));
    }

    function cells(each, place) {
      const own = [each.values, ...(each.low ? [each.low, each.high] : [])];
      return own.map((values) => (known(values[place]) ? spec.form(values[place]) : "–"));
    }

    function fillNote() {
      const said = [spec.note];
      if (spec.limit && known(spec.limit.value)) said.push(`${limited(spec) ? "dashed: " : ""}${spec.limit.label} ${page.format.number(spec.limit.value)}`);
      if ((spec.marks || []).length) said.push(`upright: a setting changed at step ${spec.marks.map((step) => page.format.number(step)).join(", ")}`);
      if (spec.expected) said.push(`grey: expected by ${spec.expected.source}`);
      note.textContent = said.filter(Boolean).join(" · ");
      note.hidden = !note.textContent;
    }

    const self = {
      node, plot: null,
      zoom(min, max) {
        if (!plot || !spec.x.length) return;
        plot.setScale("x", min === null ? {min: spec.x[0], max: spec.x[spec.x.length - 1]} : {min, max});
      },
      redraw: draw,
      update(next) {
        next.series.forEach((each, place) => {
          const before = spec.series[place];
          if (before && before.label === each.label) each.off = before.off;
        });
        const whole = plot && spec.x.length && plot.scales.x.min <= spec.x[0] && plot.scales.x.max >= spec.x[spec.x.length - 1];
        const drawn = spec.x.length > 1; // a single point is drawn in another way
        spec = next;
        fillNote();
        fillTable();
        const fresh = layers(spec);
        if (!plot || !drawn || spec.stack || fresh.series.length !== plot.series.length) {
          draw();
          return;
        }
        plot.setData(fresh.data, false);
        if (whole) self.zoom(null, null);
        else self.zoom(plot.scales.x.min, plot.scales.x.max);
        point(at, false);
      },
    };
    fillNote();
    point(null, false);
    all.add(self);
    let width = 0;
    new ResizeObserver(() => {
      if (picture.clientWidth === width || !picture.clientWidth) return;
      width = picture.clientWidth;
      if (plot) plot.setSize({width, height: spec.height || HEIGHT});
      else draw();
    }).observe(picture);
    return self;
  }

  document.addEventListener("recolour", () => {
    for (const each of all) {
      if (!each.node.isConnected) drop(each);
      else if (each.plot) each.redraw();
    }
  });

  // Draws all curves as means that remember so much of the past, from 0 to 1, with the values behind them.
  chart.smooth = (weight) => {
    smoothing = weight;
    document.dispatchEvent(new CustomEvent("recolour"));
  };

  return chart;
})();
