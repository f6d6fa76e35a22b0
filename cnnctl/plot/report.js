// A cursor in every chart: under the pointer, or moved by the arrow keys while the chart has the focus.
// Shows what the page holds already; loads nothing.
"use strict";

for (const figure of document.querySelectorAll("figure[data-chart]")) {
  const { label, left, right, series } = JSON.parse(figure.querySelector("script").textContent);
  const chart = figure.querySelector("svg");
  const cursor = figure.querySelector(".cursor");
  const output = figure.querySelector("output");
  const points = [...new Set(series.flatMap((line) => line.x))].sort((a, b) => a - b);
  const low = points[0];
  const high = points[points.length - 1];
  const width = chart.viewBox.baseVal.width;
  let chosen = points.length - 1;

  const place = (x) => left + ((x - low) / (high - low || 1)) * (right - left);

  function nearest(x, list) {
    let best = 0;
    list.forEach((candidate, i) => {
      if (Math.abs(candidate - x) < Math.abs(list[best] - x)) best = i;
    });
    return best;
  }

  function show(index) {
    chosen = Math.min(Math.max(index, 0), points.length - 1);
    const at = place(points[chosen]);
    cursor.setAttribute("x1", at);
    cursor.setAttribute("x2", at);
    cursor.style.visibility = "visible";
    const values = series.map((line) => {
      const i = nearest(points[chosen], line.x);
      return `${line.name} ${Number(line.y[i].toPrecision(4))}`;
    });
    output.textContent = `${label} ${points[chosen]}: ${values.join(", ")}`;
  }

  chart.addEventListener("pointermove", (event) => {
    const box = chart.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * width;
    show(nearest(low + ((at - left) / (right - left)) * (high - low), points));
  });
  chart.addEventListener("pointerleave", () => {
    cursor.style.visibility = "hidden";
    output.textContent = "";
  });
  figure.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: -1, ArrowRight: 1, PageDown: -10, PageUp: 10, Home: -Infinity, End: Infinity };
    if (!(event.key in moves)) return;
    event.preventDefault();
    show(chosen + moves[event.key]);
  });
  figure.addEventListener("focus", () => show(chosen));
}
