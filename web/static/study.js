// The images of a study: series, slices, window and level, and the marks where findings were read.
"use strict";
const viewer = document.querySelector(".viewer");
const canvas = document.getElementById("image");
if (canvas) start();

async function start() {
  const study = viewer.dataset.study;
  const marks = JSON.parse(document.getElementById("marks").textContent);
  const pick = document.getElementById("series");
  const slider = document.getElementById("slice");
  const where = document.getElementById("where");
  const problem = document.getElementById("problem");
  const held = new Map(); // slices that were fetched, the oldest first
  let all = [], series = null, at = 0, shown = null, low = 0, high = 1, windowed = false;

  const address = (slice) => `/studies/${study}/instances/${slice.instance}/frames/${slice.frame}`;
  const name = (slice) => `${slice.instance}.${slice.frame}`;

  async function pixels(slice) {
    if (!held.has(name(slice))) {
      const answer = await fetch(address(slice));
      if (!answer.ok) throw new Error("This image cannot be shown.");
      const number = (header) => Number(answer.headers.get(header));
      held.set(name(slice), {
        values: new Uint16Array(await answer.arrayBuffer()), rows: number("X-Rows"), columns: number("X-Columns"),
        low: number("X-Low"), high: number("X-High"), dark: number("X-Dark"), bright: number("X-Bright"),
      });
      if (held.size > 120) held.delete(held.keys().next().value);
    }
    return held.get(name(slice));
  }

  function draw() {
    if (!shown) return;
    const { image, slice } = shown;
    const tall = image.rows * slice.spacing[0], wide = image.columns * slice.spacing[1];
    const scale = 736 / Math.max(tall, wide); // pixels of the canvas a millimetre
    canvas.width = Math.round(wide * scale);
    canvas.height = Math.round(tall * scale);
    const grey = new ImageData(image.columns, image.rows);
    const step = (image.high - image.low) / 65535, range = Math.max(high - low, 1e-6);
    for (let i = 0; i < image.values.length; i++) {
      const value = 255 * (image.low + image.values[i] * step - low) / range;
      grey.data[4 * i] = grey.data[4 * i + 1] = grey.data[4 * i + 2] = value;
      grey.data[4 * i + 3] = 255;
    }
    const plain = new OffscreenCanvas(image.columns, image.rows);
    plain.getContext("2d").putImageData(grey, 0, 0);
    const ink = canvas.getContext("2d");
    ink.imageSmoothingQuality = "high";
    ink.drawImage(plain, 0, 0, canvas.width, canvas.height);
    const across = canvas.width / image.columns, down = canvas.height / image.rows;
    ink.font = "600 14px system-ui, sans-serif";
    for (const mark of marks.filter((m) => m.instance === slice.instance && m.frame === slice.frame)) {
      const x = (mark.column + 0.5) * across, y = (mark.row + 0.5) * down;
      const here = mark.at === viewer.dataset.at;
      const colour = { severe: "#ff7d74", moderate: "#f5c25c", normal_mild: "#7fe0a6" }[mark.severity];
      for (const [width, style] of [[here ? 5 : 4, "#000"], [here ? 2.5 : 1.5, colour]]) {
        ink.lineWidth = width; ink.strokeStyle = style;
        ink.beginPath(); ink.arc(x, y, here ? 15 : 9, 0, 2 * Math.PI); ink.stroke();
      }
      if (here) {
        ink.lineWidth = 4; ink.strokeStyle = "#000"; ink.fillStyle = colour;
        const left = x > canvas.width * 0.6;
        ink.textAlign = left ? "right" : "left";
        ink.strokeText(mark.name, x + (left ? -20 : 20), y + 5); ink.fillText(mark.name, x + (left ? -20 : 20), y + 5);
      }
    }
    canvas.dataset.shown = name(slice);
  }

  async function show(index) {
    if (!series || !series.slices.length) return;
    at = Math.min(series.slices.length - 1, Math.max(0, index));
    slider.value = at;
    const slice = series.slices[at];
    where.textContent = `${at + 1} of ${series.slices.length}, image ${slice.number}`;
    try {
      const image = await pixels(slice);
      if (slice !== series.slices[at]) return; // another was asked for meanwhile
      if (!windowed) { low = image.dark; high = image.bright; }
      shown = { image, slice };
      problem.textContent = "";
      draw();
      for (const beside of [at + 1, at - 1]) if (series.slices[beside]) pixels(series.slices[beside]).catch(() => {});
    } catch (error) { problem.textContent = error.message; }
  }

  function choose(index, slice) {
    series = all[index];
    pick.value = index;
    slider.max = series.slices.length - 1;
    windowed = false;
    return show(slice ?? Math.floor(series.slices.length / 2));
  }

  const answer = await fetch(`/studies/${study}/series`);
  if (!answer.ok) { problem.textContent = "The images cannot be listed."; return; }
  all = await answer.json();
  if (!all.length) { problem.textContent = "There are no images."; return; }
  all.forEach((one, i) => pick.add(new Option(`${one.number ?? "–"}: ${one.description || one.plane} (${one.slices.length})`, i)));
  const mark = marks.find((m) => m.at === viewer.dataset.at);
  const of = mark ? all.findIndex((one) => one.slices.some((s) => s.instance === mark.instance && s.frame === mark.frame)) : -1;
  if (of >= 0) await choose(of, all[of].slices.findIndex((s) => s.instance === mark.instance && s.frame === mark.frame));
  else await choose(0);

  pick.addEventListener("change", () => choose(Number(pick.value)));
  slider.addEventListener("input", () => show(Number(slider.value)));
  document.getElementById("reset").addEventListener("click", () => { windowed = false; show(at); });
  canvas.addEventListener("wheel", (event) => { event.preventDefault(); show(at + Math.sign(event.deltaY)); }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const by = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
    if (by) { event.preventDefault(); show(at + by); }
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
