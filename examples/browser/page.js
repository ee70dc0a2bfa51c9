// The page: a photo, its eyes, the changes, and what is drawn of them.

import { available, findFace, Model } from "./model.js";
import { bounds, fit, inverse, layer, LUMA, map, moved, picture, pixels, putBack, template, warped } from "./photo.js";

const VIEW = 1024; // a longer photo is shown reduced, so that changes stay quick; the download has its full size
const MAX_PIXELS = 50e6, LEAST_EYES = 6; // pixels of a photo, and between its eyes
const CLOSE = 0.6; // share of the photo's shorter side that a face may take to be shown in close-up
const CELLS = 5;
const COLOURS = { absent: "#ff9f1c", present: "#4cc9f0", photo: "#ffffff" };

const $ = (id) => document.getElementById(id);
const eyes = [...document.querySelectorAll(".eye")];
const contextOf = (canvas) => canvas.getContext("2d", { willReadFrequently: true });

let model;
let photo = null; // {name, full, view, edited}: the file's name and three canvases
let frame = null; // {left, top, width, height}: what is shown of the view
let marks = []; // landmarks in the view: two eyes, or five of the detector
let face = null; // {transform, crop, code, own}: the aligned face, its code and what the model draws of that
let w = null; // the code's w with the changes
let cells = { key: "", done: 0 }; // the faces of the plane

// -- messages ----------------------------------------------------------------------------------------------------------

const say = (text) => ($("status").textContent = text);

function complain(text) {
  $("problem").textContent = text;
  $("problem").hidden = !text;
}

/** Does one thing after another, and shows what goes wrong. */
let last = Promise.resolve();
const next = (act) => (last = last.then(act).catch((error) => complain(error.message)));

// -- the photo ---------------------------------------------------------------------------------------------------------

function canvasOf(source, width, height) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height }), context = contextOf(canvas);
  context.imageSmoothingQuality = "high";
  context.drawImage(source, 0, 0, width, height);
  return canvas;
}

async function open(file, name) {
  complain("");
  let image;
  try {
    image = await createImageBitmap(file);
  } catch {
    throw new Error("expected a photo (JPEG, PNG, WebP, …), got something else: choose another file");
  }
  const { width, height } = image;
  if (width * height > MAX_PIXELS)
    throw new Error(`expected a photo of at most ${MAX_PIXELS / 1e6} megapixels, got ${width}×${height} pixels: make it smaller`);
  const shrink = Math.min(1, VIEW / Math.max(width, height)), full = canvasOf(image, width, height);
  const small = [width, height].map((side) => Math.max(1, Math.round(side * shrink)));
  const view = canvasOf(full, ...small);
  photo = { name, full, view, edited: canvasOf(view, ...small) };
  [face, w, marks, isStale] = [null, null, [], false];
  $("close-up").checked = false;
  enable();
  lay();
  say("Looking for a face …");
  marks = (await findFace(photo.view)) ?? [];
  if (!marks.length) return say("No face found: click on both eyes.");
  await align();
  const across = model.size / Math.hypot(...face.transform.a);
  $("close-up").checked = across < CLOSE * Math.min(...small);
  lay();
}

/** Shows the photo and what became of it: the whole of both, or the surroundings of the face. */
function lay() {
  const { view } = photo;
  frame = { left: 0, top: 0, width: view.width, height: view.height };
  if ($("close-up").checked && face) {
    const wider = { a: face.transform.a, b: face.transform.b.map((value) => value + model.size / 4) };
    const [[left, top], [right, bottom]] = bounds(view, inverse(wider), 1.5 * model.size);
    frame = { left, top, width: right - left, height: bottom - top };
  }
  for (const [id, source] of [["before", view], ["after", photo.edited]]) {
    Object.assign($(id), { width: frame.width, height: frame.height });
    contextOf($(id)).drawImage(source, -frame.left, -frame.top);
  }
  placeMarks();
}

function show(canvas, source) {
  [canvas.width, canvas.height] = [source.width, source.height];
  if (source instanceof ImageData) contextOf(canvas).putImageData(source, 0, 0);
  else contextOf(canvas).drawImage(source, 0, 0);
}

const enable = () => ["download", "reset"].forEach((id) => ($(id).disabled = !face));

/** The pixels of a canvas around the face, and the transform from these. */
function around(canvas, transform, margin) {
  const [low, high] = bounds(canvas, inverse(transform), model.size, margin);
  return { low, image: contextOf(canvas).getImageData(...low, high[0] - low[0], high[1] - low[1]), near: moved(transform, low) };
}

async function align() {
  const [left, right] = marks;
  if (Math.hypot(right[0] - left[0], right[1] - left[1]) < LEAST_EYES)
    throw new Error(`expected eyes at least ${LEAST_EYES} pixels apart: mark both eyes, or take a larger photo`);
  const transform = fit(marks, template(model.about.preprocessor.landmarks, model.size).slice(0, marks.length));
  const scale = Math.hypot(...transform.a);
  const { image, near } = around(photo.view, transform, 3 * Math.ceil(1 / scale) + 3);
  const crop = warped(picture(image), near, model.size), code = await model.encode(crop, LUMA);
  const before = face;
  face = { transform, crop, code, own: await model.decode(code) };
  if (before) keepChanges(before); else w = code.w.slice();
  show($("crop"), pixels(crop));
  say("");
  enable();
  refresh();
}

/** Another alignment gives another code; what was changed stays changed. */
function keepChanges(before) {
  const changed = w;
  w = face.code.w.slice();
  for (let d = 0; d < w.length; d++) if (changed[d] !== before.code.w[d]) w[d] = changed[d];
}

// -- the eyes ----------------------------------------------------------------------------------------------------------

function placeMarks() {
  eyes.forEach((button, i) => {
    button.hidden = !marks[i];
    if (!marks[i]) return;
    place(button, marks[i]);
  });
}

function place(button, [x, y]) {
  button.style.left = `${(100 * (x - frame.left)) / frame.width}%`;
  button.style.top = `${(100 * (y - frame.top)) / frame.height}%`;
}

function markAt(event) {
  const box = $("before").getBoundingClientRect();
  const scale = frame.width / box.width;
  return [frame.left + (event.clientX - box.left) * scale, frame.top + (event.clientY - box.top) * scale];
}

function setMark(i, point) {
  marks = marks.slice(0, 2);
  marks[i] = [0, 1].map((d) => Math.min(Math.max(point[d], 0), [photo.view.width, photo.view.height][d]));
  if (marks.length === 2 && marks[0][0] > marks[1][0]) marks.reverse();
  placeMarks();
  if (marks.length === 2) next(() => (complain(""), align()));
  else say("Now the other eye.");
}

$("marked").addEventListener("click", (event) => {
  if (!photo || event.detail === 0) return; // 0: a key pressed on a mark
  const point = markAt(event), away = marks.slice(0, 2).map((mark) => Math.hypot(mark[0] - point[0], mark[1] - point[1]));
  setMark(marks.length < 2 ? marks.length : Number(away[1] < away[0]), point);
});

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
eyes.forEach((button, i) => {
  button.addEventListener("keydown", (event) => {
    const step = ARROWS[event.key];
    if (!step) return;
    event.preventDefault();
    setMark(i, marks[i].map((value, d) => value + step[d] * (event.shiftKey ? 10 : 1)));
  });
  button.addEventListener("pointerdown", () => {
    let isDragged = false;
    button.onpointermove = (event) => {
      if (!event.buttons) return;
      isDragged = true;
      button.setPointerCapture(event.pointerId);
      place(button, markAt(event));
    };
    button.onclick = (event) => {
      button.onpointermove = null;
      if (!isDragged) return; // a click beside the mark's middle
      event.stopPropagation();
      setMark(i, markAt(event));
    };
  });
});

// -- changes -----------------------------------------------------------------------------------------------------------

const words = (name) => name.replaceAll("_", " ").replace(/(?<=.)[A-Z]/g, (letter) => letter.toLowerCase());

function buildControls() {
  const { attributes, exclusive } = model.about, rows = [];
  attributes.forEach((name, i) => {
    if (exclusive.some((group) => group.includes(name))) return;
    const range = Object.assign(document.createElement("input"), { type: "range", min: -0.5, max: 1.5, step: 0.01, disabled: true });
    range.dataset.attribute = i;
    range.ariaLabel = words(name); // without the number beside it
    range.addEventListener("input", () => change(i, model.at(i, Number(range.value))));
    rows.push(labelled(words(name), range, document.createElement("output")));
  });
  for (const group of exclusive) {
    const choice = document.createElement("select");
    choice.append(...group.map((name) => new Option(words(name), attributes.indexOf(name))));
    choice.dataset.group = group.map((name) => attributes.indexOf(name)).join(" ");
    choice.disabled = true;
    choice.ariaLabel = "One of these";
    choice.addEventListener("change", () => {
      for (const i of choice.dataset.group.split(" ").map(Number)) w.set(model.at(i, Number(i === Number(choice.value))), i * model.width);
      change(Number(choice.value), model.at(choice.value, 1));
    });
    rows.push(labelled("One of these", choice));
  }
  $("sliders").replaceChildren(...rows);
  $("shown").replaceChildren(...attributes.map((name, i) => new Option(words(name), i)));
  $("kinds").hidden = model.width !== 2;
}

function labelled(text, ...controls) {
  const label = document.createElement("label");
  label.append(Object.assign(document.createElement("span"), { textContent: text }), ...controls);
  return label;
}

function change(i, point) {
  $("shown").value = i;
  w.set(point, i * model.width);
  refresh();
}

/** Brings the controls and the pictures up to w. */
function refresh() {
  for (const range of document.querySelectorAll("#sliders input")) {
    const level = model.level(w, Number(range.dataset.attribute));
    range.disabled = false;
    if (range !== document.activeElement || Math.abs(range.value - level) > 0.006) range.value = level;
    range.nextElementSibling.value = Number(range.value).toFixed(2);
  }
  for (const choice of document.querySelectorAll("#sliders select")) {
    choice.disabled = false;
    choice.value = choice.dataset.group.split(" ").reduce((a, b) => (model.level(w, Number(b)) > model.level(w, Number(a)) ? b : a));
  }
  isStale = true;
  drawPlane();
  next(draw);
}

let isStale = false;
async function draw() {
  if (!isStale || !face) return;
  isStale = false;
  const isChanged = w.some((value, d) => value !== face.code.w[d]);
  const edited = isChanged ? await model.decode({ z: face.code.z, w }) : face.own;
  show($("decoded"), pixels(edited));
  face.layer = isChanged ? layer(edited, face.own, face.crop) : null;
  contextOf(photo.edited).drawImage(photo.view, 0, 0);
  if (face.layer) blend(photo.edited, face.transform);
  contextOf($("after")).drawImage(photo.edited, -frame.left, -frame.top);
  document.dispatchEvent(new Event("edited"));
  if (!isStale) next(fillPlane);
}

function blend(canvas, transform) {
  const { low, image, near } = around(canvas, transform, 0);
  putBack(image, face.layer, near);
  contextOf(canvas).putImageData(image, ...low);
}

// -- the plane ---------------------------------------------------------------------------------------------------------

/** The square around the middle of the class means, twice as wide as they are apart, or wider to hold the photo's. */
function square(i) {
  const [absent, present] = model.about.class_means[i], own = model.point(face.code.w, i);
  const middle = absent.map((value, d) => (value + present[d]) / 2);
  const away = Math.max(...own.map((value, d) => Math.abs(value - middle[d])));
  return { middle, reach: Math.max(Math.hypot(present[0] - absent[0], present[1] - absent[1]), 1.1 * away, 1e-3) };
}

const shown = () => Number($("shown").value);
const pointAt = ({ middle, reach }, x, y) => [middle[0] + (2 * x - 1) * reach, middle[1] + (1 - 2 * y) * reach];
const placeOf = ({ middle, reach }, [u, v]) => [((u - middle[0]) / reach + 1) / 2, (1 - (v - middle[1]) / reach) / 2];

function drawPlane() {
  if (!face || $("kinds").hidden) return;
  const i = shown(), plane = square(i), others = w.map((v, d) => (Math.floor(d / 2) === i ? 0 : v));
  const key = [i, ...face.code.z.subarray(0, 4), ...others].join();
  if (cells.key !== key) cells = { key, done: 0, canvas: canvasOf($("crop"), 480, 480) };
  $("plane").dataset.faces = cells.done;
  const canvas = $("plane"), context = contextOf(canvas), side = canvas.width;
  context.globalAlpha = 1;
  context.drawImage(cells.canvas, 0, 0);
  const [absent, present] = model.about.class_means[i];
  context.font = "600 19px system-ui, sans-serif";
  context.textAlign = "center";
  for (const [name, point] of Object.entries({ photo: model.point(face.code.w, i), absent, present })) {
    const [x, y] = placeOf(plane, point).map((value) => value * side);
    dot(context, x, y, 7, COLOURS[name], "#000", 1);
    context.lineWidth = 4;
    context.strokeText(name, x, y + (name === "photo" ? -13 : 25));
    context.fillText(name, x, y + (name === "photo" ? -13 : 25));
  }
  const [x, y] = placeOf(plane, model.point(w, i)).map((value) => Math.min(Math.max(value, 0), 1) * side);
  dot(context, x, y, 15, "transparent", "#000", 9);
  dot(context, x, y, 15, "transparent", "#fff", 5);
  canvas.setAttribute("aria-label", `The plane of ${words(model.about.attributes[i])}, now at ${model.level(w, i).toFixed(2)}`);
}

function dot(context, x, y, radius, fill, stroke, width) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  Object.assign(context, { fillStyle: fill, strokeStyle: stroke, lineWidth: width });
  context.fill();
  context.stroke();
}

/** Draws the faces of the plane, one a turn, so that changes come first. */
async function fillPlane() {
  if (isStale || !face || $("kinds").hidden || cells.done === CELLS ** 2) return;
  const mine = cells, at = mine.done, i = shown(), column = at % CELLS, row = Math.floor(at / CELLS);
  const there = w.slice();
  there.set(pointAt(square(i), (column + 0.5) / CELLS, (row + 0.5) / CELLS), i * model.width);
  const drawn = pixels(await model.decode({ z: face.code.z, w: there }));
  if (mine !== cells) return;
  const side = 480 / CELLS, source = canvasOf(await createImageBitmap(drawn), side, side);
  contextOf(mine.canvas).drawImage(source, column * side, row * side);
  mine.done++;
  drawPlane();
  await new Promise((resolve) => setTimeout(resolve));
  next(fillPlane);
}

function pick(event) {
  if (!face) return;
  const box = $("plane").getBoundingClientRect();
  const at = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  change(shown(), pointAt(square(shown()), ...at.map((value) => Math.min(Math.max(value, 0), 1))));
}

$("plane").addEventListener("pointerdown", pick);
$("plane").addEventListener("pointermove", (event) => event.buttons && pick(event));
$("plane").addEventListener("keydown", (event) => {
  const step = ARROWS[event.key];
  if (!step || !face) return;
  event.preventDefault();
  const at = placeOf(square(shown()), model.point(w, shown())).map((value, d) => Math.min(Math.max(value + step[d] / 20, 0), 1));
  change(shown(), pointAt(square(shown()), ...at));
});

// -- the rest ----------------------------------------------------------------------------------------------------------

async function save() {
  const { full, view, name } = photo, canvas = canvasOf(full, full.width, full.height), scale = view.width / full.width;
  const { a, b } = face.transform;
  if (face.layer) blend(canvas, { a: a.map((value) => value * scale), b });
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: `${name}-edited.png` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

async function choose(name) {
  complain("");
  say("Loading the model …");
  model = await Model.load(name);
  buildControls();
  const { license_name: licence, license_link: link } = model.about.license;
  $("licence").replaceChildren("Licence of the weights: ", link ? Object.assign(document.createElement("a"), { href: link, textContent: licence }) : licence ?? "not given", ".");
  [face, w, cells] = [null, null, { key: "", done: 0 }];
  say("Choose a photo.");
  if (photo && marks.length >= 2) await align();
}

const example = async () => open(await (await fetch("files/example.png")).blob(), "example");
const take = (file) => file && next(() => open(file, file.name.replace(/\.[^.]*$/, "")));

$("file").addEventListener("change", (event) => (take(event.target.files[0]), (event.target.value = "")));
$("example").addEventListener("click", () => next(example));
$("model").addEventListener("change", () => next(() => choose($("model").value)));
$("shown").addEventListener("change", () => (drawPlane(), next(fillPlane)));
$("close-up").addEventListener("change", () => photo && lay());
$("reset").addEventListener("click", () => (w.set(face.code.w), refresh()));
$("download").addEventListener("click", () => next(save));
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => (event.preventDefault(), take(event.dataTransfer.files[0])));

next(async () => {
  const names = await available();
  $("model").replaceChildren(...names.map((name) => new Option(name)));
  $("models").hidden = names.length < 2;
  await choose(names[0]);
  await example();
});
