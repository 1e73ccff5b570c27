/* One unit: its card, and the dialog with everything known of it. */
"use strict";
(function () {
  const {get, load, make, swatch, number, percent, anchor, pair, lines, stepScale} = window.dissect;
  const site = get("site", "site");
  const root = document.body.dataset.root;
  const scale = Math.max(0.1, Math.ceil(site.highest * 20) / 20);
  const width = (value) => (100 * Math.min(1, value / scale)).toFixed(2) + "%";
  const strip = (one) => root + "images/" + one.slug + "/" + one.channel + ".jpg";
  const shown = (one) => one.data.exemplars ? one.data.exemplars[one.row] : [];
  const color = (one) => one.category < 0 ? "#d5dae0" : site.categories[one.category].color;

  function meter(one) {
    return make("div", {class: "meter", "aria-hidden": "true"},
      make("span", {class: "m-ceiling", style: {width: width(one.best.ceiling)}}),
      make("span", {class: "m-iou", style: {width: width(one.best.iou)}}),
      make("span", {class: "m-cutoff"}));
  }

  function card(one) {
    const node = make("li", {class: "card", style: {"--color": color(one)}, "data-unit": one.id},
      make("div", {class: "card-head"},
        make("h3", {}, make("a", {href: anchor(one.id)}, one.best ? one.name : "no label", make("span", {class: "id"}, "  " + one.id)))));
    if (!one.best) {
      node.append(make("p", {class: "facts-line"}, "dead: no label pixel is active"));
      return node;
    }
    const others = one.data.top[one.row].slice(1, 4).map((other) => site.concepts.name[other[0]] + " " + number(pair(one, other).iou));
    node.append(
      make("p", {class: "facts-line"}, swatch(color(one)), site.categories[one.category].name, " · ", make("b", {class: "iou"}, "IoU " + number(one.iou)), make("span", {class: "below-text"}, " · below the cutoff")),
      drawn(one.concept) ? make("p", {class: "facts-line"}, "labels: " + drawn(one.concept)) : "",
      meter(one),
      make("p", {class: "facts-line"}, `share ${percent(one.best.share)} · ceiling ${number(one.best.ceiling)}`),
      others.length ? make("p", {class: "facts-line"}, "then " + others.join(", ")) : "");
    const images = shown(one);
    if (images.length) {
      node.append(make("img", {
        class: "strip", loading: "lazy", decoding: "async", src: strip(one), style: {"aspect-ratio": String(site.exemplars)},
        alt: `${images.length} images that activate ${one.id} most, bright where it is active`,
      }));
    }
    return node;
  }

  /* Show on the cards of these units which lie below the cutoff, and where it is. */
  function cut(place, units, cutoff) {
    place.style.setProperty("--cutoff", width(cutoff));
    units.forEach((one, n) => place.children[n].classList.toggle("below", one.iou <= cutoff));
  }

  /* The strip's pictures one by one: the image is shown so wide that only the picture wanted is in view. */
  function exemplars(one) {
    const images = shown(one);
    if (!images.length) return [];
    const last = Math.max(1, site.exemplars - 1);
    const figures = images.map((image, n) => make("figure", {},
      make("img", {
        loading: "lazy", src: strip(one), alt: "bright where the unit is active",
        style: {"object-position": `${100 * n / last}% 0`},
      }),
      make("figcaption", {}, ...breakable(one.data.images[image]))));
    return [make("h3", {}, "Images of highest activation"), make("div", {class: "large"}, ...figures)];
  }

  /* A file's name that may break after its separators. */
  function breakable(name) {
    return name.split(/(?<=[/_-])/).flatMap((part) => [part, make("wbr")]);
  }

  /* What is to be known of a concept's labels where a segmenter drew them. */
  function drawn(concept) {
    const {drawn, label_iou} = site.concepts;
    if (!drawn || drawn[concept] === "human") return "";
    return label_iou[concept] === null ? drawn[concept] : `${drawn[concept]}, ${number(label_iou[concept])}`;
  }

  function concepts(one) {
    const head = ["concept", "category", "IoU", "precision", "recall", "share of pixels", "ceiling", ...(site.concepts.drawn ? ["labels"] : [])];
    const rows = one.data.top[one.row].map(function (top) {
      const found = pair(one, top), category = site.categories[site.concepts.category[top[0]]];
      return make("tr", {}, make("th", {scope: "row"}, site.concepts.name[top[0]]), make("td", {}, swatch(category.color), category.name),
        ...[number(found.iou), number(found.precision), number(found.recall), percent(found.share), number(found.ceiling), ...(site.concepts.drawn ? [drawn(top[0]) || "human"] : [])].map((text) => make("td", {class: "n"}, text)));
    });
    return [make("h3", {id: "h-top"}, "Top concepts"),
      make("div", {class: "scroll", role: "group", tabindex: "0", "aria-labelledby": "h-top"}, make("table", {class: "rows", "aria-labelledby": "h-top"},
        make("thead", {}, make("tr", {}, ...head.map((text, n) => make("th", {scope: "col", class: n > 1 ? "n" : null}, text)))),
        make("tbody", {}, ...rows))),
      make("p", {class: "hint"}, "Precision: share of the unit's active pixels that carry the concept. Recall: share of the concept's pixels on which the unit is active. Ceiling: the highest IoU that the two areas allow." + (site.concepts.drawn ? " Labels: who drew them; the number is the IoU of predicted labels with people's." : ""))];
  }

  function facts(one) {
    const active = (one.data.area || [])[one.row];
    const areas = active ? active.map((area, n) => `${site.domains[n]} ${area.toLocaleString("en")}`).join(", ") : "";
    return make("p", {class: "hint"}, `Threshold T = ${one.data.threshold[one.row]}; ${one.data.exceedance[one.row].toLocaleString("en")} activations lie above it.` +
      (areas ? ` Active label pixels in each domain: ${areas}.` : ""));
  }

  /* The unit's label and IoU in every snapshot. */
  function trajectory(one, cutoff, data) {
    const points = site.snapshots.map(function (snapshot, s) {
      const row = data.channel[s] ? data.channel[s].indexOf(one.channel) : -1;
      const concept = row < 0 ? -1 : data.concept[s][row];
      return {snapshot, slug: site.slugs[s][one.layer], concept, iou: concept < 0 ? null : data.iou[s][row], name: concept < 0 ? "" : site.concepts.name[concept]};
    });
    if (points.length < 2) return [];
    const steps = stepScale(points.map((point) => point.snapshot.step));
    const at = points.map((point) => steps(point.snapshot.step));
    const figure = make("figure", {});
    lines(figure, [{name: "", color: color(one), values: points.map((point) => point.iou)}],
      {at, ticks: points.map((point, n) => [at[n], String(point.snapshot.step)]), label: "training step"},
      {title: `IoU of ${one.id} with its best concept over training steps`, yLabel: "IoU with its best concept",
        mark: {axis: "y", at: cutoff, text: "cutoff"}, names: points.map((point) => point.name)});
    const rows = points.map((point) => make("tr", {},
      make("th", {scope: "row"}, point.slug ? make("a", {href: root + "pages/" + point.slug + ".html" + anchor(one.id)}, point.snapshot.name) : point.snapshot.name),
      make("td", {class: "n"}, String(point.snapshot.step)), make("td", {}, point.name || "–"), make("td", {class: "n"}, point.iou === null ? "–" : number(point.iou))));
    return [make("h3", {id: "h-path"}, "Over the snapshots"), make("div", {class: "figures"}, figure,
      make("div", {class: "scroll", role: "group", tabindex: "0", "aria-labelledby": "h-path"}, make("table", {class: "rows", "aria-labelledby": "h-path"},
        make("thead", {}, make("tr", {}, make("th", {scope: "col"}, "snapshot"), make("th", {scope: "col", class: "n"}, "step"), make("th", {scope: "col"}, "best concept"), make("th", {scope: "col", class: "n"}, "IoU"))),
        make("tbody", {}, ...rows))))];
  }

  /* Fill the dialog; the trajectory comes when its file is loaded. */
  function detail(one, cutoff, body) {
    const label = one.best
      ? make("p", {}, swatch(color(one)), make("b", {}, one.name), ` (${site.categories[one.category].name}), IoU ${number(one.iou)}`, one.iou > cutoff ? "" : `, below the cutoff of ${cutoff}`)
      : make("p", {}, "Dead: no label pixel is active, so it has no label.");
    body.replaceChildren(label, ...exemplars(one), ...(one.best ? concepts(one) : []), facts(one));
    return load("trajectory", String(one.layer), "trajectory-" + one.layer).then(function (data) {
      if (body.firstChild === label) body.append(...trajectory(one, cutoff, data));
    });
  }

  Object.assign(window.dissect, {card, cut, detail});
})();
