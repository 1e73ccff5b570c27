/* Units by concept: which units of which layers have this concept as their label. */
"use strict";
(function () {
  const {get, load, fail, make, swatch, options, number, percent, noun, anchor} = window.dissect;
  const site = get("site", "site");
  const byId = (id) => document.getElementById(id);
  const FEW = 12;
  let units = {};

  function chips(found, slugs, all) {
    const place = make("div", {class: "chips"});
    for (const [layer, channel, iou] of all ? found : found.slice(0, FEW)) {
      const unit = site.layers[layer].name + "/" + channel;
      place.append(make("a", {href: "pages/" + slugs[layer] + ".html" + anchor(unit)}, unit + " ", make("small", {}, number(iou))));
    }
    if (!all && found.length > FEW) {
      const more = make("button", {type: "button"}, `${found.length - FEW} more`);
      more.addEventListener("click", function () {
        const whole = chips(found, slugs, true);
        place.replaceWith(whole);
        whole.children[FEW].focus();
      });
      place.append(more);
    }
    return place;
  }

  function rows() {
    const cutoff = Number(byId("cutoff").value), layer = byId("layer").value, category = byId("category").value;
    const words = byId("search").value.trim().toLowerCase();
    const found = [];
    site.concepts.name.forEach(function (name, place) {
      if (category !== "" && site.concepts.category[place] !== Number(category)) return;
      if (words && !name.toLowerCase().includes(words) && String(site.concepts.number[place]) !== words) return;
      const mine = (units[place] || []).filter((unit) => unit[2] > cutoff && (layer === "" || unit[0] === Number(layer)));
      if (mine.length) found.push({place, name, mine});
    });
    const order = byId("sort").value;
    found.sort((a, b) => order === "name" ? a.name.localeCompare(b.name)
      : order === "iou" ? b.mine[0][2] - a.mine[0][2]
      : b.mine.length - a.mine.length || b.mine[0][2] - a.mine[0][2]);
    return found;
  }

  function row(one, slugs) {
    const category = site.categories[site.concepts.category[one.place]];
    const domain = site.concepts.domain_area[one.place], share = domain ? site.concepts.area[one.place] / domain : 0;
    /* Roles, because narrow windows show rows as blocks, which would end their being rows to a screen reader. */
    return make("tr", {role: "row"},
      make("th", {scope: "row", role: "rowheader"}, one.name),
      make("td", {role: "cell"}, swatch(category.color), category.name),
      make("td", {role: "cell", class: "n"}, percent(share)),
      make("td", {role: "cell", class: "n"}, String(one.mine.length)),
      make("td", {role: "cell"}, chips(one.mine, slugs, false)));
  }

  function draw() {
    const found = rows(), slugs = site.slugs[Number(byId("snapshot").value)];
    byId("concepts").replaceChildren(...found.map((one) => row(one, slugs)));
    const total = found.reduce((sum, one) => sum + one.mine.length, 0);
    byId("summary").textContent = found.length
      ? `${found.length} of ${site.concepts.name.length} concepts are detected, by ${noun(total, "unit")}.`
      : "No concept is detected by these units at this cutoff.";
  }

  function open() {
    const snapshot = byId("snapshot").value;
    load("concepts", snapshot, "concepts-" + snapshot).then(function (value) {
      units = value;
      draw();
    }).catch(fail);
  }

  options(byId("category"), site.categories.map((one) => one.name));
  options(byId("layer"), site.layers.map((one) => one.name));
  byId("cutoff").value = site.cutoff;
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  byId("controls").addEventListener("input", (event) => event.target.id === "snapshot" ? open() : draw());
  open();
})();
