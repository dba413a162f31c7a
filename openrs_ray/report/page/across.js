// One problem across the steps, side by side: in each column a step and one of its completions.
"use strict";

const across = (() => {
  const {el, refill} = page;
  const MOST = 400;
  const COLUMNS = 3;

  // `back`: called by the button that leaves. Returns an element that fills itself.
  function view(run, row, back) {
    const title = el("h3", {tabindex: "-1"}, `${completion.capitalised(completion.problemName(row))} across the steps`);
    const body = el("div", {}, el("p", {}, "Reading…"));
    const root = el("div", {class: "c-across"},
      el("button", {type: "button", class: "plain", onclick: back}, "← Back to the list"), title, body);
    fill(run, row, body);
    queueMicrotask(() => title.focus());
    return root;
  }

  async function fill(run, row, body) {
    const query = {phase: row.phase, problem: row.problem_index, order: "step"};
    if (row.task) query.task = row.task;
    try {
      const found = await everyStep(run, query);
      const steps = [...new Set(found.rows.map((each) => each.step))];
      const columns = el("div", {class: "c-steps", tabindex: "0", role: "region", "aria-label": "Steps side by side"},
        chosen(steps, row.step).map((step) => column(run, found.rows, steps, step, row)));
      const single = steps.length > 1 ? null : el("p", {class: "note"}, "Only one step that can be read here has this problem.");
      const more = found.rows.length < found.total
        ? el("p", {class: "note"}, `${found.rows.length} of its ${found.total} completions, of the first and the last steps.`) : null;
      refill(body, el("div", {class: "c-words"}, row.problem), el("p", {}, "Gold: ", (row.gold || ["not in the record"]).join(" or ")),
        single, more, columns);
    } catch (error) {
      refill(body, el("p", {class: "fault", role: "alert"}, `The completions cannot be read: ${error.message}`));
    }
  }

  // The first and the last ones, where there are too many for one answer.
  async function everyStep(run, query) {
    const first = await source.completions(run, query, 0, MOST);
    const got = first.rows.length; // fewer than asked for, where the server gives fewer
    if (first.total <= got) return first;
    const last = await source.completions(run, query, Math.max(got, first.total - got), got);
    return {rows: first.rows.concat(last.rows), total: first.total};
  }

  // First and last step, and the one that was being read.
  function chosen(steps, current) {
    const wanted = [steps[0], steps.includes(current) ? current : steps[Math.floor(steps.length / 2)], steps[steps.length - 1]];
    const distinct = [...new Set(wanted)];
    const middle = steps[Math.floor(steps.length / 2)];
    if (distinct.length < COLUMNS && !distinct.includes(middle)) distinct.push(middle);
    return distinct.sort((a, b) => a - b);
  }

  function column(run, rows, steps, step, wanted) {
    const place = el("div", {});
    const samples = el("select", {onchange: draw});
    const choice = el("select", {onchange: () => restep(null)}, steps.map((each) => el("option", {value: each}, `step ${each}`)));
    choice.value = String(step);
    const own = () => rows.filter((each) => String(each.step) === choice.value);

    function restep(sample) {
      refill(samples, own().map((each, number) =>
        el("option", {value: number}, `sample ${each.sample}: ${completion.words(each.status)}, ${completion.reward(each)}`)));
      const same = own().findIndex((each) => each.sample === sample);
      samples.value = String(Math.max(0, same));
      draw();
    }

    function draw() {
      const row = own()[Number(samples.value)];
      const judged = own().filter((each) => each.reward !== null && each.reward !== undefined);
      const mean = judged.reduce((sum, each) => sum + each.reward, 0) / (judged.length || 1);
      refill(place,
        el("p", {}, completion.verdict(row), ` · ${completion.reward(row)} · ${completion.length(row)}`),
        el("p", {class: "note"}, `Mean reward of its ${own().length} completions: ${judged.length ? completion.value(mean) : "none"}`),
        el("div", {class: "c-words c-text"}, row.text));
    }

    restep(wanted.step === step ? wanted.sample : null);
    return el("div", {role: "group", class: "c-step", "aria-label": `step ${step}`},
      el("label", {class: "c-field"}, "Step", choice), el("label", {class: "c-field"}, "Completion", samples), place);
  }

  return {view};
})();
