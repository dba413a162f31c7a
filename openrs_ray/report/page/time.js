// Where the time went: stages of each step, utilisation of each process, the timeline of the last steps.
"use strict";

(() => {
  const {el, format} = page;
  const STAGES = [["collect", "sampling and judging"], ["train", "learning"], ["push", "weight push"], ["other", "everything else"]];
  const CAUSES = {
    completions: "waiting for completions", verdicts: "waiting for verdicts", train: "learning", push: "weight push", write: "writing the record",
    save: "saving a checkpoint", evaluate: "evaluating", other: "everything else",
  };
  const median = (values) => {
    const sorted = [...values].sort((a, b) => a - b);
    const half = sorted.length / 2;
    return sorted.length % 2 ? sorted[Math.floor(half)] : (sorted[half - 1] + sorted[half]) / 2;
  };

  function stageSpec(run) {
    return {
      title: "Seconds of each step", form: format.seconds, stack: true, height: 220, x: run.stages.step,
      note: `the last ${run.stages.step.length} steps, without checkpoints and evaluations between them`,
      series: STAGES.map(([name, label], place) => ({label, values: run.stages[name], colour: place})),
    };
  }

  function meter(share, label) {
    const bar = el("span", {class: "meter", "aria-hidden": "true"}, el("i"));
    bar.firstChild.style.width = `${Math.round(100 * share)}%`;
    return el("span", {class: "metered", title: label}, bar, el("span", {class: "number"}, format.share(share)));
  }

  function causes(trace) {
    const total = trace.steps.map((step, place) => Object.values(trace.causes).reduce((sum, values) => sum + values[place], 0));
    const rows = Object.entries(trace.causes)
      .map(([cause, values]) => [cause, median(values), median(values.map((value, place) => (total[place] ? value / total[place] : 0)))])
      .filter(([, seconds]) => seconds > 0)
      .sort((a, b) => b[1] - a[1])
      .map(([cause, seconds, share]) => [CAUSES[cause] || cause, format.seconds(seconds), meter(share, cause)]);
    return page.table(["the loop was", "median", "of the step"], rows, {named: true, label: "Causes"});
  }

  function busy(trace) {
    return page.table(["process", "busy"], trace.processes.map(({process, busy: share}) => [process, meter(share, process)]), {label: "Utilisation"});
  }

  function traced(trace) {
    if (!trace) return el("p", {class: "soft"}, "There is no trace of a whole step yet.");
    const [first, last] = [trace.steps[0], trace.steps[trace.steps.length - 1]];
    return el("div", {class: "pair"},
      page.section(`What steps ${first} to ${last} waited for`, causes(trace)),
      page.section("How busy each process was", busy(trace)));
  }

  function part(run, place, several) {
    const root = el("div", {class: "part"});
    const spans = page.timeline();
    const [chart, tables, below] = [page.chart(stageSpec(run)), el("div"), el("div")];
    root.append(several ? el("h2", {class: "run"}, page.swatch(place), run.name) : "", el("div", {class: "grid wide"}, chart.node), tables, below);
    const fill = (now) => {
      chart.update(stageSpec(now));
      page.refill(tables, traced(now.trace));
      below.hidden = !now.trace;
      if (now.trace) spans.update(now.trace.timeline);
    };
    below.append(page.section("The last steps, span by span", spans.node));
    fill(run);
    return {root, fill};
  }

  page.tab({
    id: "time",
    title: "Time",
    when: (runs) => runs.some((run) => run.stages.step.length || run.trace) || page.data.live,
    draw(root, runs) {
      const parts = runs.map((run, place) => part(run, place, runs.length > 1));
      root.append(...parts.map((each) => each.root));
      return (now) => now.forEach((run, place) => parts[place].fill(run));
    },
  });
})();
