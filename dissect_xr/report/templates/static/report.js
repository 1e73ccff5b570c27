/* What all pages share: data handed over by scripts, elements made without HTML, scores from counts.
   Names come from data: they only ever become text (textContent) or attributes, never HTML. */
"use strict";
(function () {
  const given = new Map();
  const waiting = new Map();

  /* Called by every file in data/. */
  function give(kind, key, value) {
    given.set(kind + " " + key, value);
  }

  function get(kind, key) {
    return given.get(kind + " " + key);
  }

  /* A data file that the page did not name itself: a script element, since fetch is blocked on file://. */
  function load(kind, key, file) {
    const name = kind + " " + key;
    if (given.has(name)) return Promise.resolve(given.get(name));
    if (!waiting.has(name)) {
      waiting.set(name, new Promise(function (resolve, reject) {
        const script = document.createElement("script");
        script.src = document.body.dataset.root + "data/" + file + ".js";
        script.onload = () => given.has(name) ? resolve(given.get(name)) : reject(new Error(file + ".js is damaged"));
        script.onerror = () => reject(new Error("data/" + file + ".js is missing from the report's folder"));
        document.head.append(script);
      }));
    }
    return waiting.get(name);
  }

  function fail(error) {
    const place = document.getElementById("failure");
    place.textContent = "Something is missing: " + error.message + ".";
    place.hidden = false;
  }

  /* make("a", {href: "..."}, "text", other) */
  function make(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (name === "style") for (const [key, to] of Object.entries(value)) node.style.setProperty(key, to);
      else node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children.filter((child) => child !== null && child !== undefined));
    return node;
  }

  function swatch(color) {
    return make("span", {class: "swatch", style: {background: color}, "aria-hidden": "true"});
  }

  function options(select, names) {
    names.forEach((name, place) => select.append(make("option", {value: String(place)}, name)));
  }

  /* Scores as dissect_xr.analysis.score derives them: 0 of nothing is 0. */
  const over = (part, whole) => whole === 0 ? 0 : part / whole;
  function scores(count, active, labelled, domain) {
    return {
      iou: over(count, active + labelled - count),
      precision: over(count, active),
      recall: over(count, labelled),
      share: over(labelled, domain),
      ceiling: over(Math.min(active, labelled), Math.max(active, labelled)),
    };
  }

  const number = (value) => value.toFixed(3);
  const percent = (value) => (100 * value).toFixed(value < 0.0995 ? 2 : 1) + "\u00a0%";
  const noun = (n, one) => `${n} ${one}${n === 1 ? "" : "s"}`;
  const anchor = (unit) => "#unit=" + encodeURIComponent(unit).replaceAll("%2F", "/");

  window.dissect = {give, get, load, fail, make, swatch, options, scores, number, percent, noun, anchor};
})();
