// Tables of the evaluations on benchmarks (launch.evaluate) that lie in the run's folder.
"use strict";

(() => {
  const {el} = page;

  function report(each) {
    return el("article", {}, el("h2", {}, each.title), el("p", {class: "soft"}, each.place),
      each.tables.map(({heading, rows}) => page.section(heading, page.table(rows[0], rows.slice(1), {named: true, label: heading}))),
      el("details", {}, el("summary", {}, "How to read these"), el("ul", {}, each.notes.map((note) => el("li", {}, note)))));
  }

  page.tab({
    id: "evaluations",
    title: "Evaluations",
    when: (runs) => runs.some((run) => run.evaluations.length),
    draw(root, runs) {
      const fill = (now) => page.refill(root, now.map((run, place) => [
        now.length > 1 && run.evaluations.length ? el("p", {class: "run"}, page.swatch(place), run.name) : null, run.evaluations.map(report)]));
      fill(runs);
      return fill;
    },
  });
})();
