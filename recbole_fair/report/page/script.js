"use strict";
(function () {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const settings = { responsive: true, displayModeBar: false };
  const narrow = window.matchMedia("(max-width: 600px)");

  function layoutFor(layout) {
    const fitted = structuredClone(layout);
    if (narrow.matches) {
      fitted.font.size = 11;
      fitted.margin.l = 40;
      fitted.margin.r = 6;
    }
    return fitted;
  }

  function draw(place) {
    const figure = figures[place.id];
    return Plotly.newPlot(place, figure.data, layoutFor(figure.layout), settings).then(
      () => { place.dataset.drawn = "true"; },
      (error) => {
        place.textContent = "This figure could not be drawn: " + error.message;
        console.error(error);
      }
    );
  }

  // Rows stay that hold every word of the search.
  document.querySelectorAll(".search input").forEach((field) => {
    const rows = Array.from(field.closest(".search").nextElementSibling.querySelectorAll("tbody tr"));
    const texts = rows.map((row) => row.textContent.toLowerCase());
    const status = field.closest(".search").querySelector("[role=status]");
    field.addEventListener("input", () => {
      const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
      let found = 0;
      rows.forEach((row, number) => {
        row.hidden = !words.every((word) => texts[number].includes(word));
        found += row.hidden ? 0 : 1;
      });
      status.textContent = words.length ? found + " of " + rows.length : "";
    });
  });

  const places = Array.from(document.querySelectorAll(".plot"));
  Promise.all(places.map(draw)).then(() => { document.documentElement.dataset.ready = "true"; });
  narrow.addEventListener("change", () => places.forEach(draw));
})();
