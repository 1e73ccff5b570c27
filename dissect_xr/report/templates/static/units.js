/* The units of loaded layers, and what is counted of them at a cutoff. */
"use strict";
(function () {
  const {get, scores} = window.dissect;
  const site = get("site", "site");

  /* One object per unit; its scores with its best concept are derived from counts. */
  function unitsOf(slug) {
    const data = get("layer", slug);
    return data.units || (data.units = data.channel.map((channel, row) => unit(data, slug, channel, row)));
  }

  function unit(data, slug, channel, row) {
    const layer = site.layers[data.layer].name;
    const one = {id: layer + "/" + channel, slug, data, row, layer: data.layer, channel, dead: Boolean(data.dead[row])};
    one.concept = one.dead || !data.top[row].length ? -1 : data.top[row][0][0];
    one.name = one.concept < 0 ? "" : site.concepts.name[one.concept];
    one.category = one.concept < 0 ? -1 : site.concepts.category[one.concept];
    one.best = one.concept < 0 ? null : pair(one, data.top[row][0]);
    one.iou = one.best ? one.best.iou : -1;
    one.words = [one.id, one.name, one.category < 0 ? "dead" : site.categories[one.category].name].join("\n").toLowerCase();
    /* Best label within each category, for unique detectors by category. */
    one.within = one.dead ? [] : data.best[row].filter((best) => best[0] >= 0).map((best) => ({concept: best[0], iou: pair(one, best).iou}));
    return one;
  }

  /* Scores of a unit with one of its concepts, [position, intersection, the unit's area in the concept's domain]. */
  function pair(one, [concept, count, active]) {
    return scores(count, active, site.concepts.area[concept], site.concepts.domain_area[concept]);
  }

  /* Detectors, both counts of unique detectors, and units per concept, of units whose IoU exceeds the cutoff. */
  function recount(units, cutoff) {
    const perConcept = new Map(), byCategory = new Set();
    let detectors = 0, dead = 0;
    for (const one of units) {
      if (one.dead) dead += 1;
      if (one.iou > cutoff) {
        detectors += 1;
        perConcept.set(one.concept, (perConcept.get(one.concept) || 0) + 1);
      }
      for (const best of one.within) if (best.iou > cutoff) byCategory.add(best.concept);
    }
    return {units: units.length, detectors, dead, byUnit: perConcept.size, byCategory: byCategory.size, perConcept};
  }

  const compare = new Intl.Collator("en").compare;

  const ORDERS = {
    iou: (a, b) => b.iou - a.iou || a.layer - b.layer || a.channel - b.channel,
    concept: (a, b) => (a.concept < 0) - (b.concept < 0) || compare(a.name, b.name) || b.iou - a.iou,
    unit: (a, b) => a.layer - b.layer || a.channel - b.channel,
  };

  /* Units that pass the filters, in order. */
  function select(units, {words, category, concept, show, sort, cutoff}) {
    const found = units.filter((one) =>
      (!words || one.words.includes(words)) && (category === "" || one.category === Number(category)) &&
      (concept === null || one.concept === concept) && (show === "all" || (one.iou > cutoff) === (show === "detectors")));
    return found.sort(ORDERS[sort]);
  }

  Object.assign(window.dissect, {unitsOf, pair, recount, select, compare});
})();
