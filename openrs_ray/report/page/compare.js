// Several runs beside the first: differences on the same held-out problems, and the settings in which they differ.
"use strict";

(() => {
  const {el, format} = page;

  function paired(runs, comparison) {
    const rows = comparison.paired.map((row) => {
      const name = el("span", {class: "run"}, page.swatch(row.run), runs[row.run].name);
      if (row.fault) return [name, el("span", {class: "soft"}, row.fault), "–", "–", "–"];
      const word = !row.significant ? "none is shown" : row.mean > 0 ? "better" : "worse";
      return [name, word, `${format.points(row.mean)} ${format.interval(row.low, row.high, format.points)}`, format.p(row.corrected), format.number(row.problems)];
    });
    return page.section(`Against ${runs[0].name}`,
      el("p", {class: "soft"}, "Accuracy after training, problem by problem on the same held-out problems. The p-values are of a paired test and corrected by Holm for the number of runs; the intervals are not."),
      page.table(["run", "difference", "in points, 95 %", "p, corrected", "problems"], rows, {left: [1], named: true, label: "Paired differences"}));
  }

  function settings(runs, comparison) {
    if (!comparison.settings.length) return page.section("Settings that differ", el("p", {class: "soft"}, "None: seeds and all else are the same."));
    const head = ["setting", ...runs.map((run) => run.name)];
    return page.section("Settings that differ", page.table(head, comparison.settings, {left: head.map((name, place) => place), named: true, label: "Settings that differ"}));
  }

  page.tab({
    id: "compare",
    title: "Compare",
    when: (runs) => runs.length > 1,
    draw(root, runs) {
      const fill = (now) => {
        const {comparison} = page.data;
        page.refill(root, comparison ? [paired(now, comparison), settings(now, comparison)] : el("p", {class: "soft"}, "The comparison is being computed."));
      };
      fill(runs);
      return fill;
    },
  });
})();
