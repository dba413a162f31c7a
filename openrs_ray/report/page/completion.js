// One completion: verdict, rewards, problem, gold, prompt and text, with its tokens on demand.
"use strict";

const completion = (() => {
  const {el, refill, format} = page;
  const MARKS = {correct: "✓", wrong: "✗", no_answer: "∅", timeout: "⏱", error: "!", unchecked: "–", unparseable_gold: "?"};
  const value = (number) => String(Number(number.toPrecision(4))).replace("-", "−");
  const words = (status) => status.replaceAll("_", " ");

  // The verdict as mark and word: colour alone says nothing.
  function verdict(row) {
    return el("span", {class: `c-verdict c-verdict-${row.status}`},
      el("span", {"aria-hidden": "true"}, `${MARKS[row.status] || "?"} `), words(row.status));
  }

  function reward(row) {
    return row.reward === null || row.reward === undefined ? "no reward" : `reward ${value(row.reward)}`;
  }

  function length(row) {
    return `${format.number(row.length)} tokens${row.finish_reason === "length" ? ", cut" : ""}`;
  }

  function problemName(row) {
    return `${row.task ? `${row.task} ` : ""}problem ${row.problem_index}`;
  }

  function block(title, text, attributes) {
    return el("div", {class: "c-block"}, el("h4", {}, title), el("div", {class: "c-words", ...attributes}, text));
  }

  function rewards(row) {
    const parts = Object.entries(row.rewards || {});
    if (!parts.length) return null;
    return page.table(["Reward", "Value"], [...parts.map(([name, part]) => [name, value(part)]),
      ["weighted sum", row.reward === null ? "–" : value(row.reward)]], {label: "Rewards by part"});
  }

  function otherColumns(row) {
    if (!row.row) return null;
    let cells;
    try {
      cells = Object.entries(JSON.parse(row.row));
    } catch (error) {
      cells = [["row", row.row]];
    }
    const text = (value) => (typeof value === "string" ? value : JSON.stringify(value));
    return el("details", {}, el("summary", {}, "Other columns of its row in the data"),
      el("dl", {class: "c-columns"}, cells.map(([name, value]) => [el("dt", {}, name), el("dd", {class: "c-words"}, text(value))])));
  }

  function facts(row) {
    const one = (name, text) => (text === null || text === undefined || text === "" ? null : el("div", {}, el("dt", {}, name), el("dd", {}, text)));
    return el("dl", {class: "c-facts"},
      one("Gold", row.gold === null || row.gold === undefined ? "not in the record" : row.gold.join(" or ") || "none"),
      one("Answer taken", row.answer === null || row.answer === undefined ? "none" : row.answer),
      one("Reason", row.detail),
      one("Length", length(row)),
      one("Advantage", row.advantage === null || row.advantage === undefined ? "none" : value(row.advantage)),
      one("Mean log-probability", row.mean_logprob === null || row.mean_logprob === undefined ? null : value(row.mean_logprob)));
  }

  // `actions`: more elements behind the button for the tokens.
  function view(run, row, ...actions) {
    const text = el("div", {class: "c-words c-text"}, row.text);
    const place = el("div", {}, text);
    let on = false;
    const button = el("button", {type: "button", class: "plain", "aria-pressed": "false", onclick: toggle}, "Look at the tokens");

    async function toggle() {
      on = !on;
      button.setAttribute("aria-pressed", String(on));
      if (!on) {
        refill(place, text);
        return;
      }
      try {
        const full = row.tokens ? row : await source.completion(run, row);
        if (!on) return;
        if (full && full.tokens) refill(place, tokens.view(full.tokens));
        else refill(place, text, el("p", {class: "note"}, "The tokens of this one are not in the page: serve it with --serve to see them."));
      } catch (error) {
        refill(place, text, el("p", {class: "fault", role: "alert"}, `The tokens cannot be read: ${error.message}`));
      }
    }

    return el("div", {class: "c-one"},
      block("Problem", row.problem),
      facts(row),
      rewards(row),
      row.prompt ? el("details", {}, el("summary", {}, "Prompt as the model saw it"), el("div", {class: "c-words"}, row.prompt)) : null,
      otherColumns(row),
      el("h4", {}, "Completion"),
      el("div", {class: "c-actions"}, button, actions),
      place);
  }

  const capitalised = (text) => text[0].toUpperCase() + text.slice(1);

  return {view, verdict, reward, length, problemName, words, value, capitalised};
})();
