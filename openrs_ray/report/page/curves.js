// The curves: which figures belong together, in which form, and the tab that draws them all.
"use strict";

page.curves = (() => {
  const {share, number, seconds, dollars} = page.format;
  const small = (value) => number(value);

  // `names` are columns of the run, `starts` beginnings of columns. With several runs each name is a chart of its own.
  const CHARTS = [
    {group: "Learning", id: "reward", title: "Reward", names: ["reward"], starts: "reward_", form: number},
    {group: "Learning", id: "accuracy", title: "Accuracy", names: ["accuracy"], form: share, heldOut: true},
    {group: "Learning", id: "spread", title: "Groups with spread", names: ["groups_with_spread"], form: number, note: "only these teach"},
    {group: "Completions", id: "length", title: "Length", names: ["mean_length", "max_length"], form: number, limit: ["mean_length", "limit"], note: "tokens"},
    {group: "Completions", id: "truncated", title: "Truncated, no answer", names: ["truncated_share", "no_answer_share"], form: share, alone: true},
    {group: "Completions", id: "turns", title: "Turns", names: ["mean_turns"], form: number},
    {group: "Completions", id: "unjudged", title: "Not judged", names: ["timeouts", "errors", "not_judged", "unparseable_golds", "environment_failures"], form: number, note: "completions of a step"},
    {group: "Policy", id: "kl", title: "KL to the start model", names: ["kl"], form: small, note: "nats per token"},
    {group: "Policy", id: "teacher_kl", title: "Divergence to the teacher", names: ["teacher_kl"], form: small, note: "nats per token"},
    {group: "Policy", id: "mismatch", title: "Mismatch of engines and learner", names: ["mismatch_kl"], form: small, limit: ["mismatch_kl", "the run stops at"], note: "nats per token"},
    {group: "Policy", id: "entropy", title: "Entropy", names: ["entropy"], form: small, note: "nats per token"},
    {group: "Policy", id: "clipped", title: "Tokens clipped, weights cut", names: ["clipped_share", "truncated_weight_share"], form: share, alone: true},
    {group: "Policy", id: "samples", title: "Effective samples", names: ["effective_sample_share"], form: share},
    {group: "Policy", id: "gradient", title: "Gradient norm", names: ["grad_norm"], form: small},
    {group: "Policy", id: "rate", title: "Learning rate", names: ["learning_rate"], form: small},
    {group: "Policy", id: "age", title: "Staleness", names: ["age_mean", "age_max"], form: number, note: "policy versions"},
    {group: "Speed and cost", id: "tokens", title: "Tokens per second", names: ["tokens_per_s"], form: number},
    {group: "Speed and cost", id: "step", title: "Time of a step", names: ["step_s"], form: seconds},
    {group: "Speed and cost", id: "waits", title: "Waiting", names: ["rollout_wait_share", "learner_wait_share"], form: share, note: "share of the step"},
    {group: "Speed and cost", id: "dollars", title: "Dollars so far", names: ["cost_usd"], form: dollars},
  ];
  const LABELS = {
    reward: "all", accuracy: "training", mean_length: "mean", max_length: "longest", truncated_share: "truncated", no_answer_share: "no answer",
    clipped_share: "tokens clipped", truncated_weight_share: "weights cut", age_mean: "mean", age_max: "oldest", rollout_wait_share: "engines wait",
    learner_wait_share: "learner waits", not_judged: "no verdict", unparseable_golds: "gold unreadable", environment_failures: "environment failed",
  };
  const KEY = ["reward", "accuracy", "length", "tokens"];

  const capital = (text) => text[0].toUpperCase() + text.slice(1);
  const plain = (name) => name.replaceAll("_", " ");
  const zero = (values) => values.every((value) => !value);

  function columns(run) {
    return run.curves.columns;
  }

  // Columns of a chart that the runs have; those that are 0 throughout are left to a line below.
  function present(runs, chart) {
    const names = [...chart.names];
    if (chart.starts) for (const run of runs) names.push(...Object.keys(columns(run)).filter((name) => name.startsWith(chart.starts)));
    return [...new Set(names)].filter((name) => runs.some((run) => columns(run)[name] && !zero(columns(run)[name])));
  }

  function label(name, chart) {
    if (LABELS[name]) return LABELS[name];
    return plain(chart.starts && name.startsWith(chart.starts) ? name.slice(chart.starts.length) : name);
  }

  // The spec of one chart of one run: a curve for each column, held-out accuracy with its band among them.
  function single(run, chart) {
    const names = present([run], chart);
    const held = chart.heldOut && (run.held_out.columns.accuracy || []).length ? run.held_out : null;
    if (!names.length && !held) return null;
    const tables = [[run.curves.step, ...names.map((name) => columns(run)[name])]];
    if (held) tables.push([held.step, held.columns.accuracy, held.columns.low, held.columns.high]);
    const [x, ...values] = tables.length > 1 ? uPlot.join(tables) : tables[0];
    const series = names.map((name, place) => ({label: label(name, chart), values: values[place], colour: place}));
    if (held) {
      const own = values.slice(names.length);
      series.push({label: "held out, 95 %", values: own[0], low: own[1], high: own[2], colour: 1, dots: true});
    }
    const title = chart.alone && names.length === 1 ? capital(label(names[0], chart)) : chart.title;
    return {title, note: notes(run, chart), form: chart.form, x, series, limit: limit(run, chart), expected: run.bands[chart.names[0]], marks: marks(run)};
  }

  // Steps at which the run has changed a setting by itself: where it went on, or the checkpoint that it went back to.
  function marks(run) {
    return (run.decisions || []).filter(({changes}) => Object.keys(changes).length).map((each) => each.to_step ?? each.step);
  }

  function notes(run, chart) {
    const bucket = run.curves.bucket > 1 ? `smallest and largest of each ${run.curves.bucket} steps` : null;
    return [chart.note, bucket].filter(Boolean).join(" · ");
  }

  function limit(run, chart) {
    return chart.limit && run.limits[chart.limit[0]] ? {value: run.limits[chart.limit[0]], label: chart.limit[1]} : null;
  }

  // Specs of one chart of several runs: one for each column, a curve for each run.
  function overlaid(runs, chart) {
    const specs = present(runs, chart).map((name) => {
      const several = name !== chart.names[0] || chart.names.length > 1;
      return joined(runs, chart, several ? `${chart.title}: ${label(name, chart)}` : chart.title, (run) => [run.curves.step, columns(run)[name]]);
    });
    if (chart.heldOut && runs.some((run) => run.held_out.columns.accuracy)) {
      specs.push(joined(runs, chart, "Held-out accuracy, 95 %", (run) => {
        const {accuracy, low, high} = run.held_out.columns;
        return accuracy ? [run.held_out.step, accuracy, low, high] : [[], null];
      }, true));
    }
    return specs;
  }

  function joined(runs, chart, title, of, dots) {
    const own = runs.map(of).map((table, place) => ({place, table})).filter(({table}) => table[1]);
    const [x, ...values] = uPlot.join(own.map(({table}) => table));
    let next = 0;
    const series = own.map(({place, table}) => {
      const parts = values.slice(next, next + table.length - 1);
      next += table.length - 1;
      return {label: runs[place].name, values: parts[0], low: parts[1], high: parts[2], colour: place, dots};
    });
    const first = runs[own[0].place];
    return {title, brief: true, note: notes(first, chart), form: chart.form, x, series, limit: limit(first, chart), expected: first.bands[chart.names[0]]};
  }

  function tasks(runs) {
    const names = new Set(runs.flatMap((run) => Object.keys(columns(run)).filter((name) => name.startsWith("task/"))));
    const figures = {};
    for (const name of names) (figures[name.split("/").pop()] ||= []).push(name);
    return Object.entries(figures)
      .filter(([figure]) => figure !== "groups")
      .map(([figure, own]) => ({
        group: "Tasks", id: `task-${figure}`, title: `${capital(plain(figure))} by task`, names: own, form: figure.endsWith("share") || figure === "accuracy" ? share : number,
        label: true,
      }));
  }

  function specs(runs, charts) {
    const found = [];
    for (const chart of charts) {
      const own = runs.length === 1 ? [single(runs[0], chart)] : overlaid(runs, chart);
      own.filter(Boolean).forEach((spec, place) => found.push({key: `${chart.id}-${place}`, group: chart.group, spec}));
    }
    return found;
  }

  // Charts in a grid, by group, which take new data without being built anew while their number stays.
  function grid(root, charts, grouped) {
    let drawn = [];
    const fill = (runs) => {
      const wanted = specs(runs, charts(runs));
      if (drawn.length && wanted.map(({key}) => key).join() === drawn.map(({key}) => key).join()) {
        wanted.forEach(({spec}, place) => drawn[place].chart.update(spec));
        return;
      }
      drawn = wanted.map(({key, group, spec}) => ({key, group, chart: page.chart(spec)}));
      const groups = grouped ? [...new Set(drawn.map(({group}) => group))] : [null];
      page.refill(root, groups.map((group) => page.section(group, page.el("div", {class: "grid"},
        drawn.filter((each) => !group || each.group === group).map(({chart}) => chart.node)))));
    };
    fill(page.runs);
    return fill;
  }

  // A chart of any column, for those who look for something else.
  function any(root) {
    const names = () => [...new Set(page.runs.flatMap((run) => Object.keys(columns(run))))].sort();
    const select = page.el("select", {id: "any-figure", onchange: () => fill(page.runs)}, names().map((name) => page.el("option", {value: name, selected: name === "loss"}, name)));
    const place = page.el("div", {class: "grid"});
    const fill = (runs) => {
      const chart = {id: "any", title: select.value, names: [select.value], form: number};
      const own = runs.length === 1 ? single(runs[0], chart) : overlaid(runs, chart)[0];
      page.refill(place, own ? page.chart(own).node : page.el("p", {class: "soft"}, "0 in every step"));
    };
    page.refill(root, page.section("Any figure", page.el("p", {}, page.el("label", {for: "any-figure"}, "Figure "), select), place));
    if (names().length) fill(page.runs);
    return fill;
  }

  function smoother() {
    const choice = page.el("select", {id: "smoothing", onchange: (event) => page.chart.smooth(Number(event.target.value))},
      [["0", "as they are"], ["0.7", "a little"], ["0.9", "more"], ["0.97", "most"]].map(([value, title]) => page.el("option", {value}, title)));
    return page.el("p", {class: "row tool"}, page.el("label", {for: "smoothing", class: "soft"}, "Smooth the curves"), choice);
  }

  function zeros(runs) {
    const names = [...new Set(CHARTS.flatMap((chart) => chart.names))];
    return names.filter((name) => runs.some((run) => columns(run)[name]) && runs.every((run) => !columns(run)[name] || zero(columns(run)[name])));
  }

  page.tab({
    id: "curves",
    title: "Curves",
    draw(root, runs) {
      const [charts, below, rest] = [page.el("div"), page.el("p", {class: "soft"}), page.el("div")];
      root.append(smoother(), charts, below, rest);
      if (!runs.some((run) => run.curves.step.length)) charts.append(page.el("p", {class: "soft"}, "No step has been finished yet."));
      const update = grid(charts, (now) => [...CHARTS, ...tasks(now)], true);
      const others = any(rest);
      const say = (now) => {
        const named = zeros(now).map(plain);
        below.textContent = named.length ? `0 in every step: ${named.join(", ")}.` : "";
      };
      say(runs);
      return (now) => {
        update(now);
        others(now);
        say(now);
      };
    },
  });

  // The main curves; of several runs only one of each chart.
  function key(runs) {
    const main = CHARTS.filter(({id}) => KEY.includes(id));
    return runs.length === 1 ? main : main.map((chart) => ({...chart, names: chart.names.slice(0, 1), starts: null}));
  }

  return {grid, key};
})();
