// Completions: from the selection within a static page, or by page from the server. Both answer with promises.
//
// source.completions(run, query, offset, limit) -> {rows, total, note}
// source.completion(run, key) -> the row with its tokens; key = {phase, step, attempt, position, sample}
//
// `run` is the run's place among page.runs; `query` has the fields of openrs_ray/report/completions.py Query, all optional.
"use strict";

const source = (() => {
  const KEY = ["phase", "step", "attempt", "position", "sample"];
  const number = (value, without) => (value === null || value === undefined ? without : value);
  const ORDERS = {
    step: (a, b) => a.step - b.step || a.position - b.position || a.sample - b.sample,
    best: (a, b) => number(b.reward, -Infinity) - number(a.reward, -Infinity),
    worst: (a, b) => number(a.reward, Infinity) - number(b.reward, Infinity),
    longest: (a, b) => b.length - a.length,
    shortest: (a, b) => a.length - b.length,
  };

  function within(value, bounds) {
    return !bounds || (value !== null && value !== undefined && value >= bounds[0] && value <= bounds[1]);
  }

  const rewarded = (row) => row.reward !== null && row.reward !== undefined;

  function matches(row, query) {
    const text = (query.text || "").toLowerCase();
    return row.phase === (query.phase || "train")
      && (rewarded(row) || !["best", "worst"].includes(query.order))
      && within(row.step, query.steps)
      && within(row.reward, query.reward)
      && within(row.length, query.length)
      && (!query.status || !query.status.length || query.status.includes(row.status))
      && (query.problem === null || query.problem === undefined || row.problem_index === query.problem)
      && (!query.task || row.task === query.task)
      && (!text || `${row.problem}\n${row.text}`.toLowerCase().includes(text));
  }

  // Rows of the problems of several steps, those whose mean reward differs most between the first and the last step first.
  function byChange(rows) {
    const problems = new Map();
    for (const row of rows) {
      const key = `${row.task} ${row.problem_index}`;
      if (!problems.has(key)) problems.set(key, []);
      problems.get(key).push(row);
    }
    const mean = (own) => own.reduce((sum, row) => sum + row.reward, 0) / own.length;
    const change = (own) => {
      const judged = own.filter(rewarded);
      const steps = judged.map((row) => row.step);
      if (new Set(steps).size < 2) return null;
      const at = (step) => mean(judged.filter((row) => row.step === step));
      return Math.abs(at(Math.max(...steps)) - at(Math.min(...steps)));
    };
    return [...problems.values()]
      .map((own) => [change(own), own.sort(ORDERS.step)])
      .filter(([moved]) => moved !== null)
      .sort((a, b) => b[0] - a[0])
      .flatMap(([, own]) => own);
  }

  async function embedded(run, query, offset, limit) {
    const kept = page.runs[run].completions || {rows: [], total: 0, note: ""};
    const found = kept.rows.filter((row) => matches(row, query));
    const sorted = query.order === "most_changed" ? byChange(found) : found.sort(ORDERS[query.order || "step"]);
    const rows = sorted.slice(offset, offset + limit).map(({tokens, ...rest}) => rest);
    return {rows, total: sorted.length, note: kept.note};
  }

  // In a file a list of equal values is one of them.
  function unpacked(tokens) {
    const count = Math.max(...Object.values(tokens).map((values) => values.length));
    return Object.fromEntries(Object.entries(tokens).map(([name, values]) => [name, values.length < count ? Array(count).fill(values[0]) : values]));
  }

  async function ask(path, parameters) {
    const response = await fetch(`data/${path}?${new URLSearchParams(parameters)}`, {cache: "no-store"});
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.error || `the server answered ${response.status}`);
    return answer;
  }

  return {
    ask,
    completions(run, query, offset, limit) {
      if (!page.data.live) return embedded(run, query, offset, limit);
      return ask("completions", {run, query: JSON.stringify(query), offset, limit});
    },
    async completion(run, key) {
      if (page.data.live) return ask("completion", {run, key: JSON.stringify(Object.fromEntries(KEY.map((name) => [name, key[name]])))});
      const rows = (page.runs[run].completions || {rows: []}).rows;
      const found = rows.find((row) => KEY.every((name) => row[name] === key[name]));
      return found ? {...found, tokens: found.tokens ? unpacked(found.tokens) : null} : null;
    },
  };
})();
