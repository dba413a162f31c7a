// The first tab: did it help, what did it cost, the main curves, the checkpoints.
"use strict";

(() => {
  const {el, format} = page;

  function facts(pairs) {
    return el("dl", {class: "facts"}, pairs.filter(([, value]) => value !== null && value !== undefined)
      .map(([name, value, more]) => el("div", {}, el("dt", {}, name), el("dd", {}, value, more ? el("small", {}, more) : null))));
  }

  function verdict(difference) {
    if (!difference) return null;
    if (difference.fault) return el("p", {class: "soft"}, difference.fault);
    const kind = !difference.significant ? "none" : difference.mean > 0 ? "gain" : "loss";
    const word = {gain: "A significant gain", loss: "A significant loss", none: "No difference is shown"}[kind];
    return el("p", {class: "verdict"},
      el("span", {class: `chip ${kind}`}, word), " ",
      el("b", {}, `${format.points(difference.mean)} points`), " ",
      `${format.interval(difference.low, difference.high, format.points)}, ${format.p(difference.p)}`,
      el("span", {class: "soft"}, `, paired over the same ${format.number(difference.problems)} problems${difference.unjudged ? ", unjudged completions left out" : ""}`));
  }

  // A line from 0 to 100 % with each interval and its mean.
  function whiskers(rows) {
    const row = ({name, score, place}) => {
      const line = el("span", {class: "whisker", "aria-hidden": "true"}, el("i", {class: "range"}), el("i", {class: "mean"}));
      line.style.setProperty("--mark", `var(--series-${place})`);
      line.children[0].style.left = `${100 * score.low}%`;
      line.children[0].style.width = `${100 * (score.high - score.low)}%`;
      line.children[1].style.left = `${100 * score.mean}%`;
      return el("div", {class: "whisker-row"}, el("span", {class: "soft"}, name), line,
        el("span", {class: "number"}, `${format.share(score.mean)} `, el("small", {}, format.interval(score.low, score.high, format.percents))));
    };
    return el("div", {class: "whiskers"}, rows.map(row));
  }

  function accuracy(run) {
    const {before, after, teacher, difference, tasks, samples} = run.headline || {};
    if (!before && !after) return training(run, tasks || []);
    const rows = [before && {name: "before", score: before, place: 6}, after && {name: `after ${format.number(after.step)} steps`, score: after, place: 0},
      teacher && {name: "the teacher itself, for $ 0", score: teacher, place: 4}].filter(Boolean);
    const asked = samples > 1 ? `, ${samples} samples of each problem` : "";
    return el("div", {class: "headline"},
      el("p", {class: "soft"}, `Accuracy on held-out problems, with 95 % intervals${asked}`),
      el("p", {class: "big"}, before ? format.share(before.mean) : null, after ? [el("span", {class: "arrow", "aria-label": "to"}, " → "), format.share(after.mean)] : null),
      after ? verdict(difference) : el("p", {class: "soft"}, "The start model's; the policy has not been evaluated since."), whiskers(rows), taskTable(tasks || []));
  }

  // Without an evaluation: what training itself shows.
  function training(run, tasks) {
    const values = (run.curves.columns.reward || []).filter((value) => value !== null);
    if (!values.length) return el("div", {class: "headline"}, el("p", {class: "soft"}, "No step and no evaluation has been finished yet."));
    return el("div", {class: "headline"},
      el("p", {class: "soft"}, "Reward in training, first step and last; nothing was held out"),
      el("p", {class: "big"}, format.number(values[0]), el("span", {class: "arrow", "aria-label": "to"}, " → "), format.number(values[values.length - 1])),
      taskTable(tasks));
  }

  function taskTable(tasks) {
    if (!tasks.length) return null;
    const shown = (score, figure) => {
      if (!score) return "–";
      const form = figure === "accuracy" ? format.share : format.number;
      return score.low === null || score.low === undefined ? form(score.mean) : `${form(score.mean)} ${format.interval(score.low, score.high, form)}`;
    };
    return page.table(["task", "figure", "before", "after"],
      tasks.map(({task, figure, before, after}) => [task || "all", figure.replace("_", " "), shown(before, figure), shown(after, figure)]),
      {left: [1], named: true, label: "Held-out figures by task"});
  }

  // Of a run that trains, at the mean of its last steps; checkpoints and evaluations come on top.
  function left(run) {
    const parts = ["collect", "train", "push", "other"].map((name) => run.stages[name].slice(-20));
    const times = parts[0].map((value, place) => parts.reduce((sum, part) => sum + part[place], 0));
    if (run.state !== "training" || !times.length || !run.steps) return null;
    return format.seconds(((run.steps - run.step) * times.reduce((sum, value) => sum + value, 0)) / times.length);
  }

  function cost(run) {
    const head = run.headline || {};
    const per = (whole) => (head.dollars && whole ? head.dollars / whole : null);
    return facts([
      ["dollars", head.dollars === null ? null : format.dollars(head.dollars), head.budget ? `of ${format.dollars(head.budget)}` : null],
      ["dollars per step", per(run.step) === null ? null : `$ ${format.number(per(run.step))}`],
      ["GPU hours", format.hundredths(head.gpu_hours || 0)],
      ["wall time", format.seconds(3600 * (head.hours || 0))],
      ["in steps", format.seconds(head.training_s)],
      ["sampled tokens", format.number(head.tokens)],
      ["time left", left(run)],
      ["attempts", format.number(run.attempts)],
      ["guard", guard(head)],
      ["recipe", run.recipe],
      ["chain of digests", run.ledger ? run.ledger.digest.slice(0, 12) : null, run.ledger ? `head after ${format.number(run.ledger.entries)} entries` : null],
    ]);
  }

  // How often the run has warned of itself and gone back; nothing where it did neither.
  function guard({guard_warnings: warnings, rollbacks, guard_stop: stop}) {
    const said = [[warnings, "warning"], [rollbacks, "rollback"]].filter(([count]) => count).map(([count, word]) => `${format.number(count)} ${word}${count > 1 ? "s" : ""}`);
    return said.length || stop ? [...said, stop ? "stopped" : null].filter(Boolean).join(", ") : null;
  }

  function checkpoints(run) {
    if (!run.checkpoints.length) return null;
    const rows = run.checkpoints.map((each) => [
      format.number(each.step), each.kind, each.complete ? "policy and state" : "policy",
      known(each.accuracy) ? format.share(each.accuracy) : "not evaluated",
      known(each.accuracy) ? format.interval(each.low, each.high, format.percents) : "–", format.bytes(each.bytes),
    ]);
    return page.section("Checkpoints", page.table(["step", "kind", "holds", "held-out accuracy", "95 %", "size"], rows, {left: [1, 2], label: "Checkpoints"}));
  }

  const known = (value) => value !== null && value !== undefined;

  function faults(run) {
    return run.faults.length ? el("div", {class: "fault", role: "alert"}, run.faults.map((fault) => el("p", {}, fault))) : null;
  }

  const ending = (run) => (run.why ? el("p", {class: "soft"}, `Ended: ${run.why}.`) : null);

  // One row for each of several runs.
  function table(runs) {
    const rows = runs.map((run, place) => {
      const {before, after, difference, dollars, hours} = run.headline || {};
      const shown = difference && !difference.fault;
      return [
        el("span", {class: "run"}, page.swatch(place), run.name), run.state, format.number(run.step),
        before ? format.share(before.mean) : "–", after ? format.share(after.mean) : "–",
        shown ? `${format.points(difference.mean)} ${format.interval(difference.low, difference.high, format.points)}` : "–",
        shown ? format.p(difference.p).replace("p = ", "").replace("p ", "") : "–",
        format.dollars(dollars), format.seconds(3600 * (hours || 0)),
      ];
    });
    return page.section("Runs", page.table(["run", "state", "steps", "before", "after", "gain in points, 95 %", "p", "dollars", "time"], rows, {left: [1], named: true, label: "Runs"}));
  }

  page.tab({
    id: "overview",
    title: "Overview",
    draw(root, runs) {
      const [head, charts, below] = [el("div"), el("div", {class: "main"}), el("div")];
      root.append(head, charts, below);
      const fill = (now) => {
        const one = now.length === 1;
        page.refill(head, now.map(faults), now.map(ending), one ? el("div", {class: "top"}, accuracy(now[0]), cost(now[0])) : table(now));
        page.refill(below, one ? checkpoints(now[0]) : null);
      };
      fill(runs);
      const curves = page.curves.grid(charts, page.curves.key, false);
      return (now) => {
        fill(now);
        curves(now);
      };
    },
  });
})();
