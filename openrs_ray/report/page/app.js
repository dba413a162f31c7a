// The frame of the page: elements, formats, tabs, theme.
//
// A tab is one file that calls page.tab({id, title, draw(root, runs, source), when(runs)}). `draw` fills `root` once, when the tab
// is first opened; it may return a function update(runs), which a live page calls when there is news while the tab is open, and when
// it is opened again after that. Without one, the tab is not drawn again. `when` (optional) says if the tab is shown at all.
//
// Text of runs is not to be trusted: elements are made by page.el, whose strings become text, never HTML.
"use strict";

const page = (() => {
  const tabs = [];
  let runs = [];
  let data = {};
  let open = null;

  function el(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (name === "class") node.className = value;
      else if (name in node && typeof value !== "string") node[name] = value;
      else node.setAttribute(name, value === true ? "" : value);
    }
    append(node, children);
    return node;
  }

  function append(node, children) {
    for (const child of children.flat(Infinity)) {
      if (child !== null && child !== undefined && child !== false) node.append(child);
    }
  }

  function refill(node, ...children) {
    node.replaceChildren();
    append(node, children);
    return node;
  }

  const comma = (value, digits) =>
    value.toLocaleString("en-US", {minimumFractionDigits: digits, maximumFractionDigits: digits});

  const format = {
    number(value) {
      if (value === null || value === undefined || Number.isNaN(value)) return "–";
      const size = Math.abs(value);
      if (size >= 1000 || (Number.isInteger(value) && size < 1e15)) return comma(value, Number.isInteger(value) ? 0 : size < 1e4 ? 1 : 0);
      if (size !== 0 && size < 0.001) return value.toExponential(1).replace("e-", "e−").replace("e+", "e");
      return comma(value, size >= 100 ? 1 : size >= 10 ? 2 : size >= 0.1 ? 3 : 4);
    },
    share(value) {
      return value === null || value === undefined ? "–" : `${comma(100 * value, 1)} %`;
    },
    points(value) {
      if (value === null || value === undefined) return "–";
      const tenths = Math.round(1000 * value);
      return `${tenths < 0 ? "−" : tenths > 0 ? "+" : ""}${comma(Math.abs(tenths) / 10, 1)}`;
    },
    dollars(value) {
      return value === null || value === undefined ? "–" : `$ ${comma(value, 2)}`;
    },
    hundredths(value) {
      return comma(value, 2);
    },
    // As on an axis: without zeros that say nothing. Example: "100.0 %" becomes "100 %".
    short(text) {
      if (text.startsWith("$")) return text.replace(/\.00$/, "");
      return text.replace(/\.(\d*?)0+(?!\d)/, (all, kept) => (kept ? `.${kept}` : ""));
    },
    seconds(value) {
      if (value === null || value === undefined) return "–";
      if (value === 0) return "0 s";
      if (value < 0.1) return `${comma(1000 * value, 1)} ms`;
      if (value < 60) return `${comma(value, value < 10 ? 2 : 1)} s`;
      const minutes = Math.round(value / 60);
      return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
    },
    bytes(value) {
      return value >= 2 ** 30 ? `${comma(value / 2 ** 30, 1)} GiB` : `${comma(value / 2 ** 20, 1)} MiB`;
    },
    p(value) {
      return value < 0.0001 ? "p < 0.0001" : `p = ${comma(value, value < 0.01 ? 4 : 3)}`;
    },
    percents(value) {
      return comma(100 * value, 1);
    },
    interval(low, high, form) {
      return `[${form(low)}, ${form(high)}]`;
    },
  };

  // A table of texts; the first column heads its rows, the others are numbers unless `left` names
  // their places. `named`: the heads are long names.
  function table(head, rows, options = {}) {
    const left = new Set([0, ...(options.left || [])]);
    const side = (place) => (left.has(place) ? "text" : "number");
    const body = rows.map((row) =>
      el("tr", {}, row.map((cell, place) => el(place ? "td" : "th", {class: side(place), scope: place ? null : "row"}, cell))));
    return el("div", {class: options.named ? "scroll named" : "scroll", tabindex: "0", role: "region", "aria-label": options.label || "Table"},
      el("table", {},
        options.caption ? el("caption", {}, options.caption) : null,
        el("thead", {}, el("tr", {}, head.map((cell, place) => el("th", {class: side(place), scope: "col"}, cell)))),
        el("tbody", {}, body)));
  }

  function section(title, ...children) {
    return el("section", {}, title ? el("h2", {}, title) : null, children);
  }

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  }

  function seriesColour(place) {
    return colour(`series-${place % 8}`);
  }

  function say(text) {
    document.getElementById("said").textContent = text;
  }

  // ---- tabs

  function tab(definition) {
    tabs.push(definition);
  }

  function shownTabs() {
    return tabs.filter((each) => !each.when || each.when(runs));
  }

  // Puts the tabs that there is something for into their order; those that are there already stay as they are.
  function drawBar() {
    const bar = document.getElementById("tabs");
    const panels = document.getElementById("panels");
    const shown = shownTabs();
    if (shown.length && shown.every((each) => each.button) && bar.childElementCount === shown.length) return;
    for (const each of shown.filter((one) => !one.button)) {
      each.button = el("button", {
        type: "button", role: "tab", id: `tab-${each.id}`, "aria-controls": `panel-${each.id}`, "aria-selected": "false",
        tabindex: "-1", onclick: () => show(each, true), onkeydown: (event) => moved(event, each),
      }, each.title);
      each.panel = el("div", {
        role: "tabpanel", id: `panel-${each.id}`, "aria-labelledby": `tab-${each.id}`, tabindex: "0", hidden: true, class: "panel",
      });
    }
    bar.replaceChildren(...shown.map((each) => each.button));
    panels.replaceChildren(...shown.map((each) => each.panel));
  }

  function moved(event, from) {
    const shown = shownTabs();
    const place = shown.indexOf(from);
    const to = {
      ArrowRight: (place + 1) % shown.length,
      ArrowLeft: (place + shown.length - 1) % shown.length,
      Home: 0,
      End: shown.length - 1,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    show(shown[to], true);
    shown[to].button.focus();
  }

  function show(chosen, noted) {
    open = chosen;
    for (const each of shownTabs()) {
      const is = each === chosen;
      each.button.setAttribute("aria-selected", String(is));
      each.button.tabIndex = is ? 0 : -1;
      each.panel.hidden = !is;
    }
    if (noted) history.replaceState(null, "", `#${chosen.id}`);
    const bar = document.getElementById("tabs");
    bar.scrollLeft = chosen.button.offsetLeft - bar.clientWidth / 3;
    if (!chosen.drawn) {
      chosen.drawn = true;
      chosen.update = guarded(chosen, () => chosen.draw(chosen.panel, runs, source));
    } else if (chosen.stale && chosen.update) {
      guarded(chosen, () => chosen.update(runs));
    }
    chosen.stale = false;
  }

  // A fault of one tab must not take the others with it; it is shown in the tab, and the console has it.
  function guarded(chosen, work) {
    try {
      return work();
    } catch (error) {
      console.error(error);
      chosen.panel.append(el("p", {class: "fault", role: "alert"}, `This part cannot be drawn: ${error.message}`));
      return null;
    }
  }

  // ---- theme

  function darkNow() {
    const chosen = document.documentElement.dataset.theme;
    return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  }

  function setTheme(name) {
    document.documentElement.dataset.theme = name;
    try {
      localStorage.setItem("openrs-theme", name);
    } catch (error) { /* no storage: the choice lasts as long as the page */ }
    document.dispatchEvent(new CustomEvent("recolour"));
  }

  function themeButton() {
    const button = el("button", {type: "button", class: "plain theme", onclick: () => setTheme(darkNow() ? "light" : "dark")});
    const label = () => {
      button.textContent = darkNow() ? "Light" : "Dark";
      button.setAttribute("aria-label", `Switch to ${darkNow() ? "light" : "dark"} colours`);
    };
    document.addEventListener("recolour", label);
    label();
    return button;
  }

  // ---- start and news

  const STATES = {training: "training", finished: "finished", ended: "ended by a limit", stopped: "stopped", empty: "no step yet"};

  function header() {
    const one = runs.length === 1;
    const title = one ? runs[0].name : `${runs.length} runs`;
    document.title = `${title} · openrs_ray`;
    const chips = one
      ? [el("span", {class: `chip ${runs[0].state}`}, STATES[runs[0].state] || runs[0].state),
        el("span", {class: "soft"}, runs[0].steps ? `step ${format.number(runs[0].step)} of ${format.number(runs[0].steps)}` : `step ${runs[0].step}`)]
      : runs.map((run, place) => el("span", {class: "run"}, swatch(place), run.name));
    refill(document.getElementById("header"),
      el("div", {class: "title"}, el("p", {class: "brand"}, "openrs_ray"), el("h1", {}, title), el("div", {class: "chips"}, chips)),
      el("div", {class: "tools"}, data.live ? el("span", {id: "live", class: "soft"}, "live") : null, button));
  }

  let button = null;

  function swatch(place) {
    const mark = el("span", {class: "swatch", "aria-hidden": "true"});
    mark.style.setProperty("--mark", `var(--series-${place % 8})`);
    return mark;
  }

  function start(given) {
    data = given;
    runs = data.runs;
    window.RUNS = runs;
    try {
      const kept = localStorage.getItem("openrs-theme");
      if (kept) document.documentElement.dataset.theme = kept;
    } catch (error) { /* no storage */ }
    button = themeButton();
    header();
    drawBar();
    const asked = shownTabs().find((each) => `#${each.id}` === location.hash);
    show(asked || shownTabs()[0], false);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => document.dispatchEvent(new CustomEvent("recolour")));
    addEventListener("hashchange", () => {
      const found = shownTabs().find((each) => `#${each.id}` === location.hash);
      if (found && found !== open) show(found, false);
    });
  }

  function news(given) {
    Object.assign(data, given);
    runs = data.runs;
    window.RUNS = runs;
    header();
    drawBar();
    for (const each of tabs) each.stale = true;
    if (open && open.update) {
      guarded(open, () => open.update(runs));
      open.stale = false;
    }
  }

  return {
    tab, el, refill, table, section, format, colour, seriesColour, swatch, say, start, news,
    get runs() { return runs; },
    get data() { return data; },
  };
})();
