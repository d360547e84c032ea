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

  const places = Array.from(document.querySelectorAll(".plot"));
  Promise.all(places.map(draw)).then(() => { document.documentElement.dataset.ready = "true"; });
  narrow.addEventListener("change", () => places.forEach(draw));
})();
