// Settings: those that differ from the recipe, and all of them, with a filter.
"use strict";

(() => {
  const {el} = page;

  function changed(run) {
    const {changed: rows, recipe, note} = run.settings;
    if (!rows) return el("p", {class: "soft"}, note || "");
    if (!rows.length) return el("p", {class: "soft"}, `As in the recipe ${recipe}.`);
    return page.table(["setting", `recipe ${recipe}`, "this run"], rows, {left: [1, 2], named: true, label: "Settings that differ from the recipe"});
  }

  function every(run, word) {
    const rows = Object.entries(run.settings.all || {}).filter(([name, value]) => `${name} ${value}`.toLowerCase().includes(word));
    return rows.length ? page.table(["setting", "value"], rows, {left: [1], named: true, label: "All settings"}) : el("p", {class: "soft"}, "None has these words.");
  }

  page.tab({
    id: "settings",
    title: "Settings",
    draw(root, runs) {
      const bodies = runs.map(() => el("div"));
      const fill = (word) => runs.forEach((run, place) => page.refill(bodies[place], every(run, word.trim().toLowerCase())));
      const search = el("input", {type: "search", id: "setting-words", oninput: (event) => fill(event.target.value)});
      root.append(...runs.map((run, place) => page.section(runs.length > 1 ? run.name : "Different from the recipe", changed(run))),
        page.section("All settings", el("p", {}, el("label", {for: "setting-words"}, "Show those with "), search)),
        ...runs.map((run, place) => el("div", {}, runs.length > 1 ? el("h3", {}, run.name) : "", bodies[place])));
      fill("");
      for (const run of runs) root.append(el("p", {class: "soft folder"}, run.folder));
    },
  });
})();
