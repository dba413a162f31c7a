// Events: starts, losses, warnings, decisions, evaluations and ends, newest first.
"use strict";

(() => {
  const {el, format} = page;
  const KINDS = {
    loss: "losses", error: "errors", warning: "warnings", decision: "decisions of the run", start: "starts", evaluation: "evaluations", end: "ends", library: "libraries' warnings",
  };
  const hidden = new Set(["library"]);

  const clock = (time) => {
    const at = new Date(time);
    return Number.isNaN(at.getTime()) ? time : at.toISOString().slice(0, 19).replace("T", " ");
  };

  function list(run) {
    const rows = run.events.rows.filter((event) => !hidden.has(event.kind)).reverse();
    if (!rows.length) return el("p", {class: "soft"}, "None of these.");
    return el("ol", {class: "events", reversed: true}, rows.map((event) => el("li", {class: event.kind},
      el("span", {class: "when"}, el("time", {datetime: event.time}, clock(event.time)), el("small", {}, `step ${format.number(event.step)} · attempt ${event.attempt}`)),
      el("span", {class: `kind ${event.kind}`}, event.kind), el("span", {class: "text"}, event.text))));
  }

  function filters(runs, changed) {
    const count = (kind) => runs.reduce((sum, run) => sum + run.events.rows.filter((event) => event.kind === kind).length, 0);
    return el("div", {class: "row", role: "group", "aria-label": "Kinds of events"}, Object.entries(KINDS).filter(([kind]) => count(kind)).map(([kind, name]) =>
      el("label", {class: "check"}, el("input", {
        type: "checkbox", checked: !hidden.has(kind),
        onchange: (event) => {
          if (event.target.checked) hidden.delete(kind);
          else hidden.add(kind);
          changed();
        },
      }), `${name} (${count(kind)})`)));
  }

  page.tab({
    id: "events",
    title: "Events",
    draw(root, runs) {
      const [top, body] = [el("div"), el("div")];
      root.append(top, body);
      let now = runs;
      const lists = () => page.refill(body, now.map((run, place) => [
        now.length > 1 ? el("h2", {class: "run"}, page.swatch(place), run.name) : null, list(run),
        run.events.left_out ? el("p", {class: "soft"}, `${format.number(run.events.left_out)} older events are in the log only: attempts/*/log.txt`) : null]));
      let said = "";
      const fill = (next) => {
        now = next;
        const fresh = JSON.stringify(next.map((run) => [run.events.rows.length, run.events.left_out]));
        if (fresh === said) return;
        said = fresh;
        page.refill(top, filters(now, lists), el("p", {class: "soft"}, "Times are UTC."));
        lists();
      };
      fill(runs);
      return fill;
    },
  });
})();
