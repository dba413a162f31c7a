// Starts the page: from the data within it, or from the server, which is then asked again for what is new.
"use strict";

(() => {
  const EVERY_MS = 3000;
  const SLOWEST_MS = 30000;
  let pause = EVERY_MS;

  function have() {
    return JSON.stringify(page.runs.map((run) => ({token: run.curves.token, points: run.curves.step.length, trace: run.trace_stamp})));
  }

  // Puts the curves' new points behind those that the page has, and keeps what is the same.
  function joined(before, after) {
    const old = before && before.curves;
    const fresh = after.curves;
    if (old && old.token === fresh.token) {
      const columns = {};
      for (const name of Object.keys(fresh.columns)) {
        columns[name] = (old.columns[name] || []).slice(0, fresh.from).concat(fresh.columns[name]);
      }
      after.curves = {...fresh, step: old.step.slice(0, fresh.from).concat(fresh.step), columns};
    }
    if (after.trace === "same") after.trace = before.trace;
    return after;
  }

  async function poll() {
    if (!document.hidden) {
      try {
        const answer = await source.ask("runs", {have: have(), stamp: page.data.stamp});
        pause = EVERY_MS;
        mark("live");
        if (answer.runs) {
          answer.runs = answer.runs.map((run, place) => joined(page.runs[place], run));
          page.news(answer);
        }
      } catch (error) {
        pause = Math.min(2 * pause, SLOWEST_MS);
        mark("the server does not answer");
      }
    }
    setTimeout(poll, pause);
  }

  function mark(text) {
    const live = document.getElementById("live");
    if (live) live.textContent = text;
  }

  async function begin() {
    const block = document.getElementById("data");
    if (block) {
      page.start(JSON.parse(block.textContent));
      return;
    }
    page.start(await source.ask("runs", {have: "[]", stamp: ""}));
    setTimeout(poll, EVERY_MS);
  }

  begin().catch((error) => {
    console.error(error);
    document.getElementById("panels").textContent = `The page cannot start: ${error.message}`;
  });
})();
