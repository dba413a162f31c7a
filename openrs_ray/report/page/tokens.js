// The tokens of a completion, coloured by what is known of each: log-probability, advantage, policy version.
//
// tokens.view(tokens) -> an element with the choice of colours, a legend, a sentence that says the same, and the text. The text is one
// stop of the Tab key; in it the arrow keys go from token to token, and what is known of one is shown and read out.
"use strict";

const tokens = (() => {
  const {el, refill, format} = page;
  const MOST = 20000;
  const GIVEN = {name: "given", label: "given by the environment"};
  // From the least to the most probable; a token belongs to the first whose limit it is below.
  const PROBABILITY = [
    {below: 0.01, name: "p0", label: "below 1 %"},
    {below: 0.05, name: "p1", label: "1 to 5 %"},
    {below: 0.2, name: "p2", label: "5 to 20 %"},
    {below: 0.5, name: "p3", label: "20 to 50 %"},
    {below: Infinity, name: "none", label: "50 % or more"},
  ];
  const ADVANTAGE = [
    {below: -1, name: "a0", label: "below −1"},
    {below: 0, name: "a1", label: "−1 to 0"},
    {below: Number.MIN_VALUE, name: "none", label: "0"},
    {below: 1, name: "a3", label: "0 to 1"},
    {below: Infinity, name: "a4", label: "1 or more"},
  ];
  const UNKNOWN = {name: "none", label: "not known"};
  const VERSIONS = 5;

  const under = (scale, value) => (value === null || value === undefined ? UNKNOWN : scale.find((each) => value < each.below));

  function versionScale(versions) {
    const known = [...new Set(versions.filter((version) => version !== null))].sort((a, b) => b - a);
    return new Map(known.map((version, age) =>
      [version, {name: age ? `v${Math.min(age, VERSIONS)}` : "none", label: `version ${version}`}]));
  }

  const MODES = {
    none: {title: "nothing", classes: () => () => UNKNOWN},
    logprob: {title: "log-probability", classes: (all) => (place) => under(PROBABILITY, probability(all, place))},
    advantage: {title: "advantage", classes: (all) => (place) => under(ADVANTAGE, all.advantage[place])},
    version: {
      title: "policy version",
      classes: (all) => {
        const scale = versionScale(all.version);
        return (place) => scale.get(all.version[place]) || UNKNOWN;
      },
    },
  };

  function probability(all, place) {
    const value = all.logprob[place];
    return value === null || value === undefined ? null : Math.exp(value);
  }

  function view(all) {
    const size = Math.min(all.id.length, MOST);
    const spans = Array.from({length: size}, (_, place) => el("span", {class: "token"}, shown(all, place)));
    const text = el("div", {class: "c-tokens", tabindex: "0", role: "group", "aria-label": "Tokens; arrow keys go through them"}, spans);
    const legend = el("ul", {class: "c-legend"});
    const sentence = el("p", {class: "c-alternative"});
    const about = el("p", {class: "c-about", "aria-live": "polite"}, "Point at a token, or go through them with the arrow keys.");
    let current = -1;

    function paint(mode) {
      const classes = MODES[mode].classes(all);
      const counts = new Map();
      for (let place = 0; place < size; place += 1) {
        const own = all.sampled[place] ? classes(place) : GIVEN;
        spans[place].className = `token token-${own.name}${place === current ? " token-current" : ""}`;
        counts.set(own.label, {own, count: (counts.get(own.label) || {count: 0}).count + 1});
      }
      const entries = ordered(mode, counts);
      refill(legend, mode === "none" ? [] : entries.map(({own, count}) =>
        el("li", {}, el("span", {class: `c-swatch token-${own.name}`, "aria-hidden": "true"}), `${own.label}: ${format.number(count)}`)));
      sentence.textContent = mode === "none" ? "" : sum(all, mode, size);
    }

    function go(place) {
      if (place < 0 || place >= size) return;
      if (current >= 0) spans[current].classList.remove("token-current");
      current = place;
      spans[place].classList.add("token-current");
      spans[place].scrollIntoView({block: "nearest", inline: "nearest"});
      about.textContent = describe(all, place);
    }

    text.addEventListener("keydown", (event) => {
      const to = {ArrowRight: current + 1, ArrowLeft: current - 1, Home: 0, End: size - 1}[event.key];
      if (to === undefined) return;
      event.preventDefault();
      go(to);
    });
    text.addEventListener("pointerover", (event) => {
      const place = spans.indexOf(event.target);
      if (place >= 0) about.textContent = describe(all, place);
    });
    text.addEventListener("click", (event) => go(spans.indexOf(event.target)));

    const choice = el("select", {onchange: () => paint(choice.value)},
      Object.entries(MODES).map(([name, mode]) => el("option", {value: name}, mode.title)));
    paint("none");
    return el("div", {class: "c-token-view"},
      el("label", {class: "c-field"}, "Colour the tokens by", choice),
      legend, sentence, text, about,
      all.id.length > size ? el("p", {}, `The first ${format.number(size)} of ${format.number(all.id.length)} tokens.`) : null);
  }

  function shown(all, place) {
    const text = all.text[place];
    return text === null || text === undefined ? `[${all.id[place]}]` : text;
  }

  // In the order of the scale, versions from the newest.
  function ordered(mode, counts) {
    const scales = {logprob: PROBABILITY, advantage: ADVANTAGE};
    const labels = [...(scales[mode] || []).map((each) => each.label)];
    const place = (label) => (labels.includes(label) ? labels.indexOf(label) : labels.length);
    const number = (label) => Number(label.split(" ")[1]) || 0;
    return [...counts.entries()]
      .sort(([a], [b]) => place(a) - place(b) || number(b) - number(a))
      .map(([, entry]) => entry);
  }

  // The colours in words.
  function sum(all, mode, size) {
    const places = [...Array(size).keys()].filter((place) => all.sampled[place]);
    const given = size - places.length;
    const rest = given ? ` ${format.number(given)} tokens were given by the environment.` : "";
    if (mode === "advantage") {
      const known = places.map((place) => all.advantage[place]).filter((value) => value !== null && value !== undefined);
      if (!known.length) return `No token has an advantage: the completion was left out of the loss, or not trained on.${rest}`;
      return `Every sampled token has the advantage ${completion.value(known[0])}: training makes the completion ` +
        `${known[0] > 0 ? "more" : known[0] < 0 ? "less" : "neither more nor less"} probable.${rest}`;
    }
    if (mode === "version") {
      const counts = new Map();
      for (const place of places) counts.set(all.version[place], (counts.get(all.version[place]) || 0) + 1);
      const parts = [...counts].map(([version, count]) => `${format.number(count)} by version ${version}`);
      return `Sampled tokens: ${parts.join(", ")}.${rest}`;
    }
    const least = places.filter((place) => all.logprob[place] !== null)
      .sort((a, b) => all.logprob[a] - all.logprob[b]).slice(0, 5)
      .map((place) => `${JSON.stringify(shown(all, place))} (token ${place + 1}, ${percent(probability(all, place))})`);
    const known = places.filter((place) => all.logprob[place] !== null);
    const mean = known.reduce((total, place) => total + all.logprob[place], 0) / Math.max(1, known.length);
    return `Mean log-probability ${completion.value(mean)}. Least probable: ${least.join(", ")}.${rest}`;
  }

  function percent(share) {
    if (share === null) return "not known";
    return share < 0.001 ? "under 0.1 %" : format.share(share);
  }

  function describe(all, place) {
    const head = `Token ${place + 1} of ${format.number(all.id.length)}: ${JSON.stringify(shown(all, place))}, id ${all.id[place]}`;
    if (!all.sampled[place]) return `${head}, given by the environment`;
    const advantage = all.advantage[place];
    return `${head}, probability ${percent(probability(all, place))}, log-probability ${all.logprob[place] === null ? "not known" : completion.value(all.logprob[place])}` +
      `, policy version ${all.version[place]}` +
      (advantage === null || advantage === undefined ? "" : `, advantage ${completion.value(advantage)}`);
  }

  return {view, describe, probability};
})();
