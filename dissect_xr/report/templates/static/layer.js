/* A layer's page: the slider, the bars, the cards, and the dialog that #unit= opens. */
"use strict";
(function () {
  const {get, load, fail, make, swatch, options, noun, anchor, unitsOf, recount, select, compare, card, cut, detail} = window.dissect;
  const site = get("site", "site");
  const here = document.body.dataset.slug;
  const byId = (id) => document.getElementById(id);
  const STEP = 48;
  const state = {units: [], shown: [], listed: [], limit: STEP, concept: null, cutoff: site.cutoff, counts: null};
  const made = new Map();
  const row = site.slugs.find((slugs) => slugs.includes(here));

  /* --- counts and bars --- */

  function count() {
    state.counts = recount(state.units, state.cutoff);
    byId("n-detectors").textContent = String(state.counts.detectors);
    byId("n-units").textContent = String(state.counts.units);
    byId("n-by-unit").textContent = String(state.counts.byUnit);
    byId("n-by-category").textContent = String(state.counts.byCategory);
    byId("n-dead").textContent = String(state.counts.dead);
    bars();
  }

  function bars() {
    const most = Math.max(1, ...state.counts.perConcept.values());
    const focused = document.activeElement && document.activeElement.dataset.concept;
    const groups = site.categories.map(function (category, place) {
      const found = [...state.counts.perConcept].filter(([concept]) => site.concepts.category[concept] === place)
        .sort((a, b) => b[1] - a[1] || compare(site.concepts.name[a[0]], site.concepts.name[b[0]]));
      return found.length ? group(category, found, most) : null;
    });
    const place = byId("bars");
    place.replaceChildren(...groups.filter(Boolean));
    if (!place.children.length) place.append(make("p", {class: "hint"}, "No unit exceeds this cutoff."));
    if (focused) place.querySelector(`[data-concept="${focused}"]`)?.focus();
  }

  function group(category, found, most) {
    const units = found.reduce((sum, one) => sum + one[1], 0);
    return make("div", {},
      make("h3", {}, swatch(category.color), `${category.name}: ${noun(found.length, "concept")}, ${noun(units, "unit")}`),
      make("ul", {}, ...found.map(([concept, n]) => bar(concept, n, most, category.color))));
  }

  /* The bar of a concept is made once; a recount changes its length and its number. */
  function bar(concept, n, most, color) {
    if (!made.has(concept)) made.set(concept, newBar(concept, color));
    const {item, button, fill, text} = made.get(concept);
    fill.style.setProperty("width", (100 * n / most).toFixed(1) + "%");
    text.textContent = String(n);
    button.setAttribute("aria-pressed", String(state.concept === concept));
    return item;
  }

  function newBar(concept, color) {
    const name = site.concepts.name[concept];
    const fill = make("span", {class: "bar-fill", style: {background: color}}), text = make("span", {class: "bar-n"});
    const button = make("button", {type: "button", class: "bar", title: name, "data-concept": String(concept)},
      make("span", {class: "bar-name"}, name), fill, text);
    button.addEventListener("click", function () {
      state.concept = state.concept === concept ? null : concept;
      for (const [other, one] of made) one.button.setAttribute("aria-pressed", String(state.concept === other));
      list();
    });
    return {item: make("li", {}, button), button, fill, text};
  }

  /* --- cards --- */

  function list() {
    state.limit = STEP;
    cards();
  }

  function cards() {
    const before = state.listed;
    state.shown = select(state.units, {
      words: byId("search").value.trim().toLowerCase(), category: byId("category").value, concept: state.concept,
      show: byId("show").value, sort: byId("sort").value, cutoff: state.cutoff,
    });
    state.listed = state.shown.slice(0, state.limit);
    if (before.length !== state.listed.length || before.some((one, n) => one !== state.listed[n])) {
      byId("cards").replaceChildren(...state.listed.map(card));
    }
    cut(byId("cards"), state.listed, state.cutoff);
    const rest = state.shown.length - state.limit;
    byId("more").hidden = rest <= 0;
    byId("more").textContent = `Show ${Math.min(rest, STEP)} more of ${rest}`;
    const only = state.concept === null ? "" : ` with the label ${site.concepts.name[state.concept]}`;
    byId("summary").textContent = `${state.shown.length} of ${noun(state.units.length, "unit")}${only}; ${noun(state.counts.detectors, "detector")} at IoU > ${state.cutoff}.`;
  }

  function more() {
    const first = state.limit;
    state.limit += STEP;
    state.listed = state.shown.slice(0, state.limit);
    byId("cards").append(...state.listed.slice(first).map(card));
    cut(byId("cards"), state.listed, state.cutoff);
    const rest = state.shown.length - state.limit;
    byId("more").hidden = rest <= 0;
    byId("more").textContent = `Show ${Math.min(rest, STEP)} more of ${rest}`;
    byId("cards").children[first].querySelector("a").focus();
  }

  function setCutoff(text) {
    const cutoff = Number.parseFloat(text);
    if (!(cutoff >= 0 && cutoff <= 1)) return;
    state.cutoff = cutoff;
    count();
    cards();
  }

  /* --- which layers are listed --- */

  function show(slugs) {
    return Promise.all(slugs.map((slug) => load("layer", slug, slug))).then(function () {
      state.units = slugs.flatMap(unitsOf);
      state.concept = null;
      count();
      list();
    });
  }

  function listedLayers() {
    const value = byId("layer").value;
    return value === "all" ? row.filter(Boolean) : [row[Number(value)]];
  }

  /* --- one unit --- */

  function unitInHash() {
    const match = /(?:^#|&)unit=([^&]*)/.exec(location.hash);
    try {
      return match && decodeURIComponent(match[1]);
    } catch {
      return match[1];
    }
  }

  function openUnit() {
    const id = unitInHash(), dialog = byId("unit");
    if (!id) {
      if (dialog.open) dialog.close();
      return;
    }
    const layer = site.layers.findIndex((one) => one.name === id.slice(0, id.lastIndexOf("/")));
    const slug = layer < 0 ? null : row[layer];
    if (!slug) {
      byId("summary").textContent = `There is no unit ${id} in this snapshot.`;
      return;
    }
    load("layer", slug, slug).then(function () {
      const one = unitsOf(slug).find((unit) => unit.id === id);
      if (!one) byId("summary").textContent = `There is no unit ${id} in this snapshot.`;
      else return fill(one, dialog);
    }).catch(fail);
  }

  function fill(one, dialog) {
    byId("unit-title").textContent = "Unit " + one.id;
    const place = state.shown.indexOf(one);
    for (const [link, other] of [["unit-previous", state.shown[place - 1]], ["unit-next", place < 0 ? undefined : state.shown[place + 1]]]) {
      byId(link).hidden = !other;
      if (other) byId(link).href = anchor(other.id);
    }
    const done = detail(one, state.cutoff, byId("unit-body"));
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    byId("unit-title").focus();
    return done;
  }

  function closed() {
    if (unitInHash()) history.replaceState(null, "", location.href.split("#")[0]);
  }

  /* --- start --- */

  options(byId("category"), site.categories.map((one) => one.name));
  site.layers.forEach((layer, n) => row[n] && byId("layer").append(make("option", {value: String(n), selected: row[n] === here}, layer.name)));
  if (row.filter(Boolean).length > 1) byId("layer").append(make("option", {value: "all"}, "all layers"));
  byId("cutoff").max = String(Math.max(0.1, Math.ceil(site.highest * 20) / 20));
  byId("cutoff").value = byId("cutoff-number").value = site.cutoff;

  byId("cutoff").addEventListener("input", function (event) {
    byId("cutoff-number").value = event.target.value;
    setCutoff(event.target.value);
  });
  byId("cutoff-number").addEventListener("input", function (event) {
    byId("cutoff").value = event.target.value;
    setCutoff(event.target.value);
  });
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  byId("controls").addEventListener("input", (event) => event.target.id === "layer" ? show(listedLayers()).catch(fail) : list());
  byId("controls").addEventListener("reset", function () {
    setTimeout(() => show(listedLayers()).catch(fail));
  });
  byId("more").addEventListener("click", more);
  byId("unit-close").addEventListener("click", () => byId("unit").close());
  byId("unit").addEventListener("close", closed);
  byId("unit").addEventListener("click", (event) => event.target === byId("unit") && byId("unit").close());
  for (const jump of document.querySelectorAll(".jump-to")) {
    jump.addEventListener("change", () => { location.href = jump.value + ".html"; });
  }
  window.addEventListener("hashchange", openUnit);
  window.addEventListener("beforeprint", () => byId("cards").querySelectorAll("img").forEach((image) => { image.loading = "eager"; }));

  show([here]).then(openUnit).catch(fail);
})();
