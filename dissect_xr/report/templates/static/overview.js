/* The overview: two figures, and the shade of the table's cells. */
"use strict";
(function () {
  const {get, lines, stepScale, anchor} = window.dissect;
  const site = get("site", "site"), curves = get("curves", "curves");
  const byId = (id) => document.getElementById(id);
  const label = {by_unit: "unique detectors (by unit)", by_category: "unique detectors (by category)", detectors: "detectors (units)"};

  /* Counts at the report's cutoff, where it is one of the curve's; otherwise at the next below. */
  const atCutoff = Math.max(0, site.cutoffs.findLastIndex((cutoff) => cutoff <= site.cutoff));

  function overSteps(count) {
    const place = byId("over-steps");
    place.querySelector(".at").textContent = String(site.cutoffs[atCutoff]);
    place.hidden = site.snapshots.length < 2;
    const scale = stepScale(site.snapshots.map((one) => one.step));
    const series = site.layers.map((layer, n) => ({
      name: layer.name, color: layer.color, values: curves.map((row) => row[n] ? row[n][count][atCutoff] : null),
    }));
    const at = site.snapshots.map((one) => scale(one.step));
    lines(place, series, {at, ticks: site.snapshots.map((one, n) => [at[n], String(one.step)]), label: "training step"},
      {title: label[count] + " of each layer over training steps", yLabel: label[count], integer: true});
  }

  function overCutoffs(count, snapshot) {
    const place = byId("over-cutoffs");
    place.querySelector(".at").textContent = site.snapshots[snapshot].name;
    const series = site.layers.map((layer, n) => ({layer, row: curves[snapshot][n]})).filter((one) => one.row)
      .map((one) => ({name: one.layer.name, color: one.layer.color, values: one.row[count]}));
    lines(place, series, {at: site.cutoffs, ticks: [0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3].map((at) => [at, String(at)]), label: "cutoff (IoU)"},
      {title: label[count] + " of each layer over the cutoff", yLabel: label[count], integer: true, mark: {at: site.cutoff, text: "cutoff " + site.cutoff}});
  }

  function draw() {
    overSteps(byId("curve-count").value);
    overCutoffs(byId("curve-count").value, Number(byId("curve-snapshot").value));
  }

  function shade() {
    const cells = [...document.querySelectorAll(".shade")];
    const most = Math.max(1, ...cells.map((cell) => Number(cell.dataset.value)));
    for (const cell of cells) cell.style.setProperty("background", `rgb(86 180 233 / ${(55 * cell.dataset.value / most).toFixed(0)}%)`);
  }

  /* A unit's link that was made without its page: the last snapshot that has the layer. */
  function follow() {
    const unit = new URLSearchParams(location.hash.slice(1)).get("unit");
    if (!unit) return;
    const layer = site.layers.findIndex((one) => one.name === unit.slice(0, unit.lastIndexOf("/")));
    const row = site.slugs.findLast((slugs) => slugs[layer]);
    if (row) location.replace("pages/" + row[layer] + ".html" + anchor(unit));
  }

  byId("curve-controls").addEventListener("change", draw);
  byId("curve-controls").addEventListener("submit", (event) => event.preventDefault());
  shade();
  draw();
  follow();
})();
