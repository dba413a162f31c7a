// The tab "Completions": filters, orders, a page of completions, and one of them opened.
"use strict";

(() => {
  const {el, refill, format} = page;
  const SHOWN = 20;
  const FAR = 1e15; // beyond every bound
  const VERDICTS = ["correct", "wrong", "no_answer", "unchecked", "unparseable_gold", "timeout", "error"];
  const PHASES = {train: "training", replaced: "replaced groups", evaluation: "held-out evaluation"};
  const ORDERS = {
    step: "step", best: "best reward first", worst: "worst reward first", longest: "longest first", shortest: "shortest first",
    most_changed: "most changed over training",
  };
  const CHOICES = {
    All: {}, Best: {order: "best"}, Worst: {order: "worst"}, Timeouts: {status: "timeout"}, "Most changed": {order: "most_changed"},
  };

  page.tab({id: "completions", title: "Completions", draw});

  function draw(root, runs) {
    let current = runs;
    let offset = 0;
    let total = 0;
    let asked = 0;
    let phase = "";

    const fields = makeFields(runs, () => search(0));
    const chips = el("div", {class: "c-choices", role: "group", "aria-label": "Choices"}, Object.entries(CHOICES).map(([title, values]) =>
      el("button", {type: "button", class: "c-choice", "aria-pressed": "false", onclick: () => choose(values)}, title)));
    const count = el("p", {class: "c-count", role: "status"});
    const news = el("button", {type: "button", class: "plain", hidden: true, onclick: () => search(offset)}, "There is news: read again");
    const list = el("ol", {class: "c-found"});
    const pager = el("nav", {class: "c-pager", "aria-label": "Pages of completions"});
    const finder = el("div", {}, chips, fields.form, el("div", {class: "c-count-line"}, count, news), list, pager);
    const aside = el("div", {hidden: true});
    refill(root, finder, aside);
    search(0);

    function choose(values) {
      fields.set({...values, run: fields.values().run, phase: fields.values().phase});
      search(0);
    }

    async function search(from) {
      const number = (asked += 1);
      const values = fields.values();
      const query = asQuery(values);
      markChips(values);
      phase = query.phase;
      offset = from;
      news.hidden = true;
      count.textContent = "Reading…";
      list.setAttribute("aria-busy", "true");
      try {
        const found = await source.completions(values.run, query, from, SHOWN);
        if (number !== asked) return;
        total = found.total;
        drawList(values.run, found, query);
      } catch (error) {
        if (number !== asked) return;
        count.textContent = "";
        refill(list, el("li", {class: "fault", role: "alert"}, `The completions cannot be read: ${error.message}`));
        refill(pager);
      }
      list.removeAttribute("aria-busy");
    }

    function markChips(values) {
      const plain = JSON.stringify(asQuery({run: values.run, phase: values.phase, order: values.order, status: values.status}));
      const now = JSON.stringify(asQuery(values));
      Object.values(CHOICES).forEach((choice, place) => {
        const own = JSON.stringify(asQuery({run: values.run, phase: values.phase, ...choice}));
        chips.children[place].setAttribute("aria-pressed", String(own === now && plain === now));
      });
    }

    function drawList(run, found, query) {
      const last = offset + found.rows.length;
      count.textContent = total
        ? `${format.number(offset + 1)} to ${format.number(last)} of ${format.number(total)} completions.${found.note ? ` ${found.note}` : ""}`
        : `No completion fits.${found.note ? ` ${found.note}` : ""}`;
      let before = null;
      refill(list, found.rows.map((row) => {
        const named = `${row.task} ${row.problem_index}`;
        const heading = query.order === "most_changed" && named !== before ? row : null;
        before = named;
        return item(run, row, heading);
      }));
      drawPager();
    }

    function item(run, row, heading) {
      const panel = el("div", {hidden: true});
      const button = el("button", {type: "button", class: "c-item", "aria-expanded": "false", onclick: toggle, onkeydown: moved},
        el("span", {class: "c-item-head"}, completion.verdict(row), el("span", {}, completion.reward(row)),
          el("span", {}, `step ${row.step}`), el("span", {}, completion.problemName(row)), el("span", {}, completion.length(row))),
        el("span", {class: "c-item-text"}, short(row)));

      function toggle() {
        const open = panel.hidden;
        panel.hidden = !open;
        button.setAttribute("aria-expanded", String(open));
        if (open && !panel.firstChild) {
          const compare = el("button", {type: "button", class: "plain", onclick: () => showAcross(run, row, compare)}, "Same problem across steps");
          panel.append(completion.view(run, row, compare));
        }
      }

      return el("li", {},
        heading ? el("h3", {class: "c-changed"}, completion.capitalised(completion.problemName(heading))) : null,
        button, panel);
    }

    // The arrow keys go from completion to completion.
    function moved(event) {
      const all = [...list.querySelectorAll("button.c-item")];
      const place = all.indexOf(event.currentTarget);
      const to = {ArrowDown: place + 1, ArrowUp: place - 1, Home: 0, End: all.length - 1}[event.key];
      if (to === undefined || !all[to]) return;
      event.preventDefault();
      all[to].focus();
    }

    function showAcross(run, row, opener) {
      finder.hidden = true;
      aside.hidden = false;
      refill(aside, across.view(run, row, () => {
        aside.hidden = true;
        finder.hidden = false;
        refill(aside);
        opener.focus();
      }));
    }

    function drawPager() {
      const last = Math.max(0, Math.floor((total - 1) / SHOWN) * SHOWN);
      const go = (title, to, off) => el("button", {type: "button", class: "plain", disabled: off, onclick: () => turn(to)}, title);
      refill(pager, total <= SHOWN ? [] : [
        go("First", 0, offset === 0), go("Previous", offset - SHOWN, offset === 0),
        go("Next", offset + SHOWN, offset >= last), go("Last", last, offset >= last),
      ]);
    }

    async function turn(to) {
      await search(to);
      const first = list.querySelector("button.c-item");
      if (first) first.focus();
    }

    return (fresh) => {
      current = fresh;
      fields.rename(current);
      const reading = !aside.hidden || list.querySelector('[aria-expanded="true"]');
      if (reading || offset || phase !== "train") news.hidden = false;
      else search(0);
    };
  }

  function short(row) {
    const text = row.text.replace(/\s+/g, " ").trim();
    return text.length > 160 ? `${text.slice(0, 160)}…` : text || "(nothing)";
  }

  function asQuery(values) {
    const query = {phase: values.phase || "train", order: values.order || "step"};
    const bounds = (low, high) => {
      const from = asNumber(low);
      const to = asNumber(high);
      return from === null && to === null ? null : [from === null ? -FAR : from, to === null ? FAR : to];
    };
    for (const name of ["steps", "reward", "length"]) {
      const both = bounds(values[`${name}_from`], values[`${name}_to`]);
      if (both) query[name] = both;
    }
    if (values.status) query.status = [values.status];
    if (asNumber(values.problem) !== null) query.problem = asNumber(values.problem);
    if (values.task) query.task = values.task;
    if (values.text) query.text = values.text;
    return query;
  }

  function asNumber(text) {
    return text === undefined || text === null || text.trim() === "" || Number.isNaN(Number(text)) ? null : Number(text);
  }

  // The form; values() gives its texts by name, set() fills them, rename() names the runs anew.
  function makeFields(runs, changed) {
    const inputs = {};
    let waiting = null;

    function later() {
      clearTimeout(waiting);
      waiting = setTimeout(changed, 300);
    }

    function input(name, label, attributes) {
      inputs[name] = el("input", {name, oninput: later, ...attributes});
      return el("label", {class: "c-field"}, label, inputs[name]);
    }

    function select(name, label, options) {
      inputs[name] = el("select", {name, onchange: changed}, options.map(([value, title]) => el("option", {value}, title)));
      return el("label", {class: "c-field"}, label, inputs[name]);
    }

    const number = {type: "text", inputmode: "decimal", size: "6", autocomplete: "off"};
    const both = (name, label) => el("fieldset", {class: "c-range"}, el("legend", {class: "unseen"}, label),
      input(`${name}_from`, `${label} from`, number), input(`${name}_to`, "to", number));
    const tasks = [...new Set(runs.flatMap((run) => run.tasks || []))].filter(Boolean);
    const form = el("form", {class: "c-filters", role: "search", "aria-label": "Filters", onsubmit: (event) => { event.preventDefault(); changed(); }},
      select("run", "Run", runs.map((run, place) => [String(place), run.name])),
      select("phase", "Of", Object.entries(PHASES)),
      select("order", "Order", Object.entries(ORDERS)),
      select("status", "Verdict", [["", "any"], ...VERDICTS.map((name) => [name, completion.words(name)])]),
      input("text", "Text in problem or completion", {type: "search", autocomplete: "off"}),
      input("problem", "Problem number", {...number, inputmode: "numeric"}),
      tasks.length ? select("task", "Task", [["", "any"], ...tasks.map((name) => [name, name])]) : null,
      both("steps", "Step"), both("reward", "Reward"), both("length", "Tokens"),
      el("button", {type: "button", class: "plain", onclick: () => { set({run: inputs.run.value}); changed(); }}, "Clear"));
    inputs.run.parentElement.hidden = runs.length < 2;

    const set = (values) => {
      for (const [name, node] of Object.entries(inputs)) {
        node.value = values[name] || {run: "0", phase: "train", order: "step"}[name] || "";
      }
    };
    return {
      form: el("details", {class: "c-filter-box", open: matchMedia("(min-width: 700px)").matches}, el("summary", {}, "Filters"), form),
      values: () => Object.fromEntries(Object.entries(inputs).map(([name, node]) => [name, node.value])),
      set,
      rename: (fresh) => fresh.forEach((run, place) => { if (inputs.run.options[place]) inputs.run.options[place].textContent = run.name; }),
    };
  }
})();
