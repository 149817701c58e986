// The images of a study: series, slices, window and level, and the marks at the findings' points.
"use strict";
const viewer = document.querySelector(".viewer");
const canvas = document.getElementById("image");
if (canvas) start();

async function start() {
  const study = viewer.dataset.study, studies = `${document.documentElement.dataset.root}/studies`;
  const marks = JSON.parse(document.getElementById("marks").textContent);
  const seriesMenu = document.getElementById("series");
  const slider = document.getElementById("slice");
  const position = document.getElementById("where");
  const problem = document.getElementById("problem");
  const cache = new Map(); // fetched slices, the oldest first
  let allSeries = [], series = null, index = 0, shown = null, low = 0, high = 1, windowed = false;

  const address = (slice) => `${studies}/${study}/instances/${slice.instance}/frames/${slice.frame}`;
  const key = (slice) => `${slice.instance}.${slice.frame}`;

  async function pixels(slice) {
    if (!cache.has(key(slice))) {
      const response = await fetch(address(slice));
      if (!response.ok) throw new Error("This image cannot be shown.");
      const number = (header) => Number(response.headers.get(header));
      cache.set(key(slice), {
        values: new Uint16Array(await response.arrayBuffer()), rows: number("X-Rows"), columns: number("X-Columns"),
        low: number("X-Low"), high: number("X-High"), dark: number("X-Dark"), bright: number("X-Bright"),
      });
      if (cache.size > 120) cache.delete(cache.keys().next().value);
    }
    return cache.get(key(slice));
  }

  function draw() {
    if (!shown) return;
    const { image, slice } = shown;
    const tall = image.rows * slice.spacing[0], wide = image.columns * slice.spacing[1];
    const scale = 736 / Math.max(tall, wide); // canvas pixels per millimetre
    canvas.width = Math.round(wide * scale);
    canvas.height = Math.round(tall * scale);
    const grey = new ImageData(image.columns, image.rows);
    const step = (image.high - image.low) / 65535, range = Math.max(high - low, 1e-6);
    for (let i = 0; i < image.values.length; i++) {
      const value = 255 * (image.low + image.values[i] * step - low) / range;
      grey.data[4 * i] = grey.data[4 * i + 1] = grey.data[4 * i + 2] = value;
      grey.data[4 * i + 3] = 255;
    }
    const unscaled = new OffscreenCanvas(image.columns, image.rows);
    unscaled.getContext("2d").putImageData(grey, 0, 0);
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(unscaled, 0, 0, canvas.width, canvas.height);
    const scaleX = canvas.width / image.columns, scaleY = canvas.height / image.rows;
    context.font = "600 14px system-ui, sans-serif";
    for (const mark of marks.filter((m) => m.instance === slice.instance && m.frame === slice.frame)) {
      const x = (mark.column + 0.5) * scaleX, y = (mark.row + 0.5) * scaleY;
      const chosen = mark.at === viewer.dataset.at;
      const colour = { severe: "#ff7d74", moderate: "#f5c25c", normal_mild: "#7fe0a6" }[mark.severity];
      for (const [width, style] of [[chosen ? 5 : 4, "#000"], [chosen ? 2.5 : 1.5, colour]]) {
        context.lineWidth = width; context.strokeStyle = style;
        context.beginPath(); context.arc(x, y, chosen ? 15 : 9, 0, 2 * Math.PI); context.stroke();
      }
      if (chosen) {
        context.lineWidth = 4; context.strokeStyle = "#000"; context.fillStyle = colour;
        const labelLeft = x > canvas.width * 0.6;
        context.textAlign = labelLeft ? "right" : "left";
        context.strokeText(mark.name, x + (labelLeft ? -20 : 20), y + 5); context.fillText(mark.name, x + (labelLeft ? -20 : 20), y + 5);
      }
    }
    canvas.dataset.shown = key(slice);
  }

  async function show(requested) {
    if (!series || !series.slices.length) return;
    index = Math.min(series.slices.length - 1, Math.max(0, requested));
    slider.value = index;
    const slice = series.slices[index];
    position.textContent = `${index + 1} of ${series.slices.length}, image ${slice.number}`;
    try {
      const image = await pixels(slice);
      if (slice !== series.slices[index]) return; // another was requested meanwhile
      if (!windowed) { low = image.dark; high = image.bright; }
      shown = { image, slice };
      problem.textContent = "";
      draw();
      for (const next of [index + 1, index - 1]) if (series.slices[next]) pixels(series.slices[next]).catch(() => {});
    } catch (error) { problem.textContent = error.message; }
  }

  function chooseSeries(number, slice) {
    series = allSeries[number];
    seriesMenu.value = number;
    slider.max = series.slices.length - 1;
    windowed = false;
    return show(slice ?? Math.floor(series.slices.length / 2));
  }

  const response = await fetch(`${studies}/${study}/series`);
  if (!response.ok) { problem.textContent = "The list of images cannot be loaded."; return; }
  allSeries = await response.json();
  if (!allSeries.length) { problem.textContent = "There are no images."; return; }
  allSeries.forEach((entry, i) => seriesMenu.add(new Option(`${entry.number ?? "–"}: ${entry.description || entry.plane} (${entry.slices.length})`, i)));
  const mark = marks.find((m) => m.at === viewer.dataset.at);
  const markedSeries = mark ? allSeries.findIndex((entry) => entry.slices.some((s) => s.instance === mark.instance && s.frame === mark.frame)) : -1;
  if (markedSeries >= 0) await chooseSeries(markedSeries, allSeries[markedSeries].slices.findIndex((s) => s.instance === mark.instance && s.frame === mark.frame));
  else await chooseSeries(0);

  seriesMenu.addEventListener("change", () => chooseSeries(Number(seriesMenu.value)));
  slider.addEventListener("input", () => show(Number(slider.value)));
  document.getElementById("reset").addEventListener("click", () => { windowed = false; show(index); });
  canvas.addEventListener("wheel", (event) => { event.preventDefault(); show(index + Math.sign(event.deltaY)); }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const steps = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
    if (steps) { event.preventDefault(); show(index + steps); }
  });
  let drag = null;
  canvas.addEventListener("pointerdown", (event) => { drag = { x: event.clientX, y: event.clientY, low, high }; canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointerup", () => { drag = null; });
  canvas.addEventListener("pointermove", (event) => {
    if (!drag || !shown) return;
    const unit = (shown.image.bright - shown.image.dark) / 300;
    const width = Math.max((drag.high - drag.low) + (event.clientX - drag.x) * unit, unit);
    const middle = (drag.high + drag.low) / 2 + (event.clientY - drag.y) * unit;
    low = middle - width / 2; high = middle + width / 2; windowed = true;
    canvas.dataset.window = `${low} ${high}`;
    draw();
  });
}
