// The token explorer. Data come as scripts, because a page on a disk may not fetch; a method's is read when it is chosen.
"use strict";

const { images, rows } = window.visiontokens.index;
const $ = (id) => document.getElementById(id);
const controls = { image: $("image"), question: $("question"), row: $("row"), layer: $("layer"), attention: $("attention") };
const canvas = $("patches");
const pen = canvas.getContext("2d");
const RAMP = [[27, 27, 58], [123, 63, 134], [224, 122, 63], [255, 243, 176]];
const GONE = -1, SPREAD = -2;
const picture = new Image();
let cursor = null; // number of the patch that is pointed at
let record = null;

const plain = (number, digits = 1) => String(Number(number.toFixed(digits)));
const image = () => images[controls.image.selectedIndex];
const question = () => image().questions[controls.question.selectedIndex];
const row = () => rows[controls.row.selectedIndex];
const item = () => record.items[`${image().id}/${question().id}`];
const layer = () => item().layers[controls.layer.value - 1];
const patches = () => record.grid[0] * record.grid[1];

function bytes(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

// Number of every patch's token in this layer, or null where it is not known.
function owners() {
  const map = layer().map;
  if (map === null) return null;
  return record.maps[map] ?? Array.from({ length: patches() }, (_, patch) => patch);
}

function weights() {
  return layer().attention === undefined ? null : bytes(layer().attention);
}

function load(name, then) {
  if (window.visiontokens[name]) return then();
  const script = document.createElement("script");
  script.src = `data/explorer/${name}.js`;
  script.onload = then;
  script.onerror = () => { $("status").textContent = `${script.src} could not be read.`; };
  document.head.append(script);
}

function fill(select, items) {
  select.replaceChildren(...items.map(([value, text]) => new Option(text, value)));
}

function ramp(share) {
  const at = share * (RAMP.length - 1), low = Math.min(RAMP.length - 2, Math.floor(at));
  return RAMP[low].map((from, i) => Math.round(from + (at - low) * (RAMP[low + 1][i] - from)));
}

function choose(part) {
  if (part === "image") fill(controls.question, image().questions.map((q) => [q.id, q.prompt.split("\n")[0]]));
  picture.src = `data:image/png;base64,${image().png}`;
  load(row().id, () => {
    record = window.visiontokens[row().id];
    controls.layer.max = item().layers.length;
    show();
  });
}

function show() {
  $("layer-name").textContent = `${controls.layer.value} of ${controls.layer.max}`;
  draw();
  bars();
  answer();
  all();
  $("status").textContent = summary();
  told();
  const state = { image: image().id, question: question().id, row: row().id, layer: controls.layer.value };
  if (!controls.attention.checked) state.attention = "off";
  history.replaceState(null, "", `#${new URLSearchParams(state)}`);
}

function summary() {
  const found = owners(), total = patches(), now = layer();
  let text = `Layer ${controls.layer.value}: ${now.tokens} of ${total} tokens.`;
  if (found === null) {
    text += " Where they come from cannot be told: the method chooses or mixes patches without a gradient.";
  } else if (found.every((owner) => owner === SPREAD)) {
    text += " Every token mixes the whole image, so no patch has a place among them.";
  } else {
    const kept = found.filter((owner) => owner >= 0), tokens = new Set(kept).size, gone = found.filter((o) => o === GONE).length;
    if (tokens < kept.length) text += ` ${kept.length} patches are joined into ${tokens}.`;
    if (gone) text += ` ${gone} patches are in no token.`;
    if (!gone && tokens === kept.length) text += " Every patch is a token of its own.";
  }
  if (now.total !== undefined) text += ` The image gets ${plain(100 * now.total)} % of the answer's attention.`;
  else text += " Attention was not looked at in this layer.";
  if (record.stochastic) text += " The draw is another one than when the answers were predicted.";
  return text;
}

function draw() {
  const [high, wide] = record.grid, size = canvas.width / wide, found = owners(), seen = weights();
  pen.imageSmoothingEnabled = picture.naturalWidth > 150;
  pen.clearRect(0, 0, canvas.width, canvas.height);
  if (picture.complete && picture.naturalWidth) pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
  for (let patch = 0; patch < high * wide; patch += 1) {
    const x = (patch % wide) * size, y = Math.floor(patch / wide) * size, owner = found ? found[patch] : SPREAD;
    if (owner === GONE) stripes(x, y, size);
    else if (owner === SPREAD) dot(x, y, size);
    else if (controls.attention.checked && seen) {
      const share = seen[owner] / 255; // little attention leaves the image visible
      pen.fillStyle = `rgb(${ramp(share).join(" ")} / ${.4 + .5 * Math.sqrt(share)})`;
      pen.fillRect(x, y, size, size);
    }
  }
  if (found) borders(found, high, wide, size);
  if (cursor !== null) pick(found, wide, size);
}

function stripes(x, y, size) {
  pen.fillStyle = "rgb(20 20 24 / .86)";
  pen.fillRect(x, y, size, size);
  pen.strokeStyle = "rgb(255 255 255 / .45)";
  pen.lineWidth = 1;
  pen.beginPath();
  pen.moveTo(x, y + size);
  pen.lineTo(x + size, y);
  pen.stroke();
}

function dot(x, y, size) {
  pen.fillStyle = "rgb(40 52 90 / .35)";
  pen.fillRect(x, y, size, size);
  pen.fillStyle = "rgb(255 255 255 / .8)";
  pen.beginPath();
  pen.arc(x + size / 2, y + size / 2, size / 10, 0, 7);
  pen.fill();
}

// A black line in a white one, between patches of different tokens; thin where every patch is one.
function borders(found, high, wide, size) {
  const path = new Path2D();
  for (let patch = 0; patch < high * wide; patch += 1) {
    const column = patch % wide, line = Math.floor(patch / wide), x = column * size, y = line * size;
    if (column + 1 < wide && found[patch] !== found[patch + 1]) { path.moveTo(x + size, y); path.lineTo(x + size, y + size); }
    if (line + 1 < high && found[patch] !== found[patch + wide]) { path.moveTo(x, y + size); path.lineTo(x + size, y + size); }
  }
  const joined = new Set(found.filter((owner) => owner >= 0)).size < found.filter((owner) => owner >= 0).length;
  for (const [style, width] of joined ? [["#ffffff", 4], ["#000000", 2]] : [["rgb(0 0 0 / .3)", 1]]) {
    pen.strokeStyle = style;
    pen.lineWidth = width;
    pen.stroke(path);
  }
}

function pick(found, wide, size) {
  const own = found ? found[cursor] : SPREAD;
  pen.strokeStyle = "#00b8ff";
  pen.lineWidth = 3;
  for (let patch = 0; patch < patches(); patch += 1) {
    if (patch === cursor || (own >= 0 && found[patch] === own)) {
      pen.strokeRect((patch % wide) * size + 2, Math.floor(patch / wide) * size + 2, size - 4, size - 4);
    }
  }
}

function told() {
  if (cursor === null || record === null) return;
  const found = owners(), seen = weights(), wide = record.grid[1];
  let text = `Patch in row ${Math.floor(cursor / wide) + 1}, column ${(cursor % wide) + 1}: `;
  const owner = found ? found[cursor] : null;
  if (owner === null) text += "where it went is not known.";
  else if (owner === GONE) text += "in no token any more.";
  else if (owner === SPREAD) text += "read by several tokens.";
  else {
    const others = found.filter((other) => other === owner).length - 1;
    text += others ? `in one token with ${others} more.` : "a token of its own.";
    if (seen) text += ` It gets ${plain(100 * layer().peak * seen[owner] / 255, 2)} % of the answer's attention.`;
  }
  $("patch").textContent = text;
}

function bars() {
  const counts = item().layers.map((one) => one.tokens), most = Math.max(...counts, 1);
  if ($("bars").clientWidth < 3 * counts.length) return; // before the page is laid out
  const width = Math.min(560, $("bars").clientWidth), step = width / counts.length, every = Math.ceil(40 / step);
  const marks = counts.map((count, i) => {
    const tall = Math.max(2, 90 * count / most), now = i + 1 === Number(controls.layer.value), x = step * (i + .5);
    const shown = now || (i % every === 0 && Math.abs(i + 1 - controls.layer.value) >= every);
    const label = shown ? `<text x="${x}" y="${112 - tall}">${count}</text><text x="${x}" y="136">${i + 1}</text>` : "";
    return `<rect class="${now ? "now" : ""}" x="${x - step / 2 + 1}" y="${118 - tall}" width="${step - 2}" height="${tall}"/>${label}`;
  });
  const words = `Vision tokens by layer: ${counts.join(", ")}`;
  $("bars").innerHTML = `<svg width="${width}" height="142" role="img" aria-label="${words}">${marks.join("")}</svg>`;
}

const mark = (correct) => correct === null ? "not marked" : correct >= 1 ? "✓ right" : correct > 0 ? `◐ ${plain(100 * correct, 0)} %` : "✗ wrong";

function answer() {
  const counts = item().layers.map((one) => one.tokens), flops = row().flops;
  const facts = [
    ["Prompt", question().prompt],
    ["Answer", `${item().answer} (${mark(item().correct)})`],
    ["Expected", question().gold],
    ["Benchmark", image().label],
    ["Budget", `${plain(counts.reduce((sum, n) => sum + n, 0) / counts.length)} tokens of an average layer, ${item().entered} enter`],
  ];
  if (flops) facts.push(["Prefill", `${(flops / 1e9).toPrecision(3)} GFLOPs (an image with a question of the measured length)`]);
  $("answer").replaceChildren(...facts.flatMap(([name, text]) => {
    const [dt, dd] = [document.createElement("dt"), document.createElement("dd")];
    dt.textContent = name;
    dd.textContent = text;
    return [dt, dd];
  }));
  if (row().page) {
    const [dt, dd, link] = [document.createElement("dt"), document.createElement("dd"), document.createElement("a")];
    dt.textContent = "Method";
    link.href = row().page;
    link.textContent = row().label;
    dd.append(link, record.query_aware ? ", sees the question" : "");
    $("answer").append(dt, dd);
  }
}

function all() {
  const key = `${image().id}/${question().id}`;
  $("all").tBodies[0].replaceChildren(...rows.filter((one) => one.items[key]).map((one) => {
    const [text, correct, tokens] = one.items[key], line = document.createElement("tr");
    for (const [value, words] of [[one.label, true], [plain(tokens), false], [text, true], [mark(correct), true]]) {
      const cell = line.insertCell();
      cell.textContent = value;
      if (words) cell.className = "words";
    }
    if (one.id === row().id) line.setAttribute("aria-current", "true");
    return line;
  }));
}

function point(patch) {
  cursor = patch;
  draw();
  told();
}

canvas.addEventListener("pointermove", (event) => {
  if (!record) return;
  const box = canvas.getBoundingClientRect(), [high, wide] = record.grid;
  const column = Math.min(wide - 1, Math.max(0, Math.floor((event.clientX - box.left) / box.width * wide)));
  const line = Math.min(high - 1, Math.max(0, Math.floor((event.clientY - box.top) / box.height * high)));
  if (cursor !== line * wide + column) point(line * wide + column);
});
canvas.addEventListener("keydown", (event) => {
  const [high, wide] = record.grid;
  const move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
  if (!move) return;
  event.preventDefault();
  const at = cursor ?? Math.floor(high / 2) * wide + Math.floor(wide / 2);
  const line = Math.min(high - 1, Math.max(0, Math.floor(at / wide) + (cursor === null ? 0 : move[0])));
  point(line * wide + Math.min(wide - 1, Math.max(0, at % wide + (cursor === null ? 0 : move[1]))));
});
picture.addEventListener("load", () => { if (record) draw(); });
for (const part of ["image", "question", "row"]) controls[part].addEventListener("change", () => choose(part));
controls.layer.addEventListener("input", show);
controls.attention.addEventListener("change", show);
$("choices").addEventListener("submit", (event) => event.preventDefault());

// The address says what is shown; what it names and is not there is passed over.
function restore() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  const at = (list, id, otherwise = 0) => { const found = list.findIndex((one) => one.id === id); return found < 0 ? otherwise : found; };
  fill(controls.image, images.map((one) => [one.id, `${one.label} (${one.file.split("/").pop()})`]));
  fill(controls.row, rows.map((one) => [one.id, one.label]));
  controls.image.selectedIndex = at(images, wanted.get("image"));
  fill(controls.question, image().questions.map((q) => [q.id, q.prompt.split("\n")[0]]));
  controls.question.selectedIndex = at(image().questions, wanted.get("question"));
  controls.row.selectedIndex = at(rows, wanted.get("row"));
  controls.attention.checked = wanted.get("attention") !== "off";
  controls.layer.max = Math.max(1, Number(wanted.get("layer")) || 1);
  controls.layer.value = controls.layer.max;
  choose("row");
}
addEventListener("hashchange", restore);
new ResizeObserver(() => { if (record) bars(); }).observe($("bars"));
restore();
