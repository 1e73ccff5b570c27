/* Line charts as SVG: values with gaps over positions, ticks, a legend in HTML. */
"use strict";
(function () {
  const {make, swatch} = window.dissect;
  const SVG = "http://www.w3.org/2000/svg";

  function draw(tag, attributes, text) {
    const node = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    if (text !== undefined) node.textContent = text;
    return node;
  }

  /* Positions of training steps: logarithmic, with step 0 half a decade before the first. */
  function stepScale(steps) {
    const first = Math.min(...steps.filter((step) => step > 0));
    return (step) => !isFinite(first) ? 0 : step <= first ? 0.5 * step / first : 0.5 + Math.log10(step / first);
  }

  function niceTicks(highest, wanted) {
    if (highest <= 0) return [0, 1];
    const raw = highest / wanted;
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= raw);
    const ticks = [];
    for (let n = 0; n * step < highest + step * 0.999; n++) ticks.push(Number((n * step).toPrecision(12)));
    return ticks;
  }

  /* series: [{name, color, values}], values[i] at x.at[i], null for a gap.
     x: {at, ticks: [[position, text]], label}; options: {title, yLabel, mark: [position, text], names: [text per i],
     integer} */
  function lines(place, series, x, options) {
    /* As wide as the place, so that text keeps its size; a place that is not shown yet has no width. */
    const wide = place.clientWidth || window.innerWidth - 60;
    const size = {width: Math.max(300, Math.min(640, wide)), height: 300, left: 52, right: 16, top: 14, bottom: 44};
    const svg = draw("svg", {class: "chart", viewBox: `0 0 ${size.width} ${size.height}`, role: "img", "aria-label": options.title});
    const low = Math.min(...x.at), high = Math.max(...x.at);
    const left = (at) => size.left + (high > low ? (at - low) / (high - low) : 0.5) * (size.width - size.left - size.right);
    const values = series.flatMap((one) => one.values.filter((value) => value !== null));
    const ticks = niceTicks(Math.max(options.integer ? 1 : 0, ...values), 5).filter((tick) => !options.integer || Number.isInteger(tick));
    const top = ticks[ticks.length - 1];
    const down = (value) => size.height - size.bottom - (value / top) * (size.height - size.top - size.bottom);
    for (const tick of ticks) {
      svg.append(draw("line", {class: "grid", x1: size.left, x2: size.width - size.right, y1: down(tick), y2: down(tick)}));
      svg.append(draw("text", {x: size.left - 8, y: down(tick) + 4, "text-anchor": "end"}, String(tick)));
    }
    svg.append(draw("line", {class: "axis", x1: size.left, x2: size.width - size.right, y1: down(0), y2: down(0)}));
    let last = -Infinity;
    for (const [at, text] of x.ticks) {
      const half = text.length * 3.4;
      if (left(at) - half < last + 6) continue;
      last = left(at) + half;
      svg.append(draw("line", {class: "axis", x1: left(at), x2: left(at), y1: down(0), y2: down(0) + 5}));
      svg.append(draw("text", {x: left(at), y: down(0) + 18, "text-anchor": "middle"}, text));
    }
    svg.append(draw("text", {x: (size.left + size.width - size.right) / 2, y: size.height - 8, "text-anchor": "middle"}, x.label));
    svg.append(draw("text", {transform: `translate(13 ${(size.height - size.bottom + size.top) / 2}) rotate(-90)`, "text-anchor": "middle"}, options.yLabel));
    if (options.mark) marked(svg, options.mark, left, down, top, size);
    for (const one of series) line(svg, one, x.at.map(left), down, options);
    if (options.names) named(svg, series[0], x.at.map(left), down, options.names, size);
    place.querySelectorAll("svg, .legend").forEach((old) => old.remove());
    place.append(svg);
    if (series.length > 1) {
      place.append(make("ul", {class: "legend"}, ...series.map((one) => make("li", {}, swatch(one.color), one.name))));
    }
  }

  function marked(svg, mark, left, down, top, size) {
    const across = mark.axis === "y";
    const at = across ? down(Math.min(mark.at, top)) : left(mark.at);
    svg.append(draw("line", across
      ? {class: "mark", x1: size.left, x2: size.width - size.right, y1: at, y2: at}
      : {class: "mark", x1: at, x2: at, y1: size.top, y2: down(0)}));
    svg.append(draw("text", across
      ? {class: "mark-text", x: size.width - size.right, y: at - 4, "text-anchor": "end"}
      : {class: "mark-text", x: at + 5, y: size.top + 8}, mark.text));
  }

  function line(svg, one, at, down, options) {
    let path = "";
    one.values.forEach((value, n) => {
      if (value !== null) path += (n && one.values[n - 1] !== null ? "L" : "M") + at[n].toFixed(1) + " " + down(value).toFixed(1);
    });
    svg.append(draw("path", {d: path, fill: "none", stroke: one.color, "stroke-width": 2.2, "stroke-linejoin": "round"}));
    if (at.length > 40) return;
    one.values.forEach((value, n) => {
      if (value === null) return;
      const point = draw("circle", {cx: at[n], cy: down(value), r: 3.4, fill: one.color});
      point.append(draw("title", {}, (one.name ? one.name + ": " : "") + (options.integer ? value : value.toFixed(3))));
      svg.append(point);
    });
  }

  /* The name at a point wherever it differs from the one before: above, or below where another name is; or left out. */
  function named(svg, one, at, down, names, size) {
    const taken = [];
    names.forEach((name, n) => {
      if (!name || (n && names[n - 1] === name)) return;
      const end = at[n] > size.width / 2, width = name.length * 6.8;
      const left = end ? at[n] - width : at[n];
      for (const shift of [-9, 18]) {
        const y = Math.max(down(one.values[n]) + shift, size.top + 2);
        if (y > size.height - size.bottom - 3 || taken.some((box) => left < box.right && left + width > box.left && Math.abs(y - box.y) < 12)) continue;
        taken.push({left, right: left + width, y});
        svg.append(draw("text", {class: "name", x: at[n], y, "text-anchor": end ? "end" : "start"}, name));
        return;
      }
    });
  }

  Object.assign(window.dissect, {lines, stepScale});
})();
