/* The trials: pictures are fetched ahead, looked at, judged, and every answer is stored by the server before the next is asked. */

import { Panes } from "./viewer.js";

const root = document.querySelector("meta[name=root]").content;
const form = document.querySelector("meta[name=form]").content;
const design = JSON.parse(document.getElementById("design").textContent);
const $ = (id) => document.getElementById(id);
const LETTERS = ["A", "B", "C", "D", "E", "F"];
const VIEWS = design.kind === "pairs" ? [["side", "Side by side"], ["slider", "Slider"], ["flicker", "Flicker"]] : [["side", "Side by side"], ["flicker", "Flicker"]];
const KEPT = `ntire-study-unsent:${root}:${$("stage").dataset.observer}`; // an answer that the server does not have yet
const RETRY = 3000;

const panes = new Panes($("stage"), (scale) => { $("zoom").textContent = `${Math.round(scale * 100)} %`; });
let asked = null; // what the server asks
let bitmaps = new Map(); // of this trial and the next, by their names
let answers = {}; // to the questions of this trial
let picked = []; // of a ranking, best first
let view = "side", flipped = 0, since = 0, ready = false, busy = false, rested = -1;

function element(tag, words, attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = words;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

/* ---- talking to the server ---- */

async function call(path, body) {
  const options = body ? { method: "POST", headers: { "Content-Type": "application/json", "X-Form": form }, body: JSON.stringify(body) } : {};
  const reply = await fetch(`${root}${path}`, options);
  const said = await reply.json();
  if (!reply.ok) throw Object.assign(new Error(said.problem), { status: reply.status });
  return said;
}

function notice(words) {
  $("notice").textContent = words;
  $("notice").hidden = !words;
}

function waiting(milliseconds) {
  return new Promise((done) => { setTimeout(done, milliseconds); });
}

/* Send an answer until the server has it. It is kept in the browser until then, also if the window is closed. */
async function send(ballot) {
  localStorage.setItem(KEPT, JSON.stringify(ballot));
  for (;;) {
    try {
      const next = await call("/api/vote", ballot);
      localStorage.removeItem(KEPT);
      notice("");
      return next;
    } catch (error) {
      if (error.status === 425) { await waiting(300); continue; }
      if (error.status && error.status < 500) {
        localStorage.removeItem(KEPT);
        notice(error.message);
        return call("/api/trial");
      }
      notice(error.status ? `${error.message} Your answer is kept here and sent again.` : "No connection. Your answer is kept here and sent again.");
      await waiting(RETRY);
    }
  }
}

async function bitmap(name) {
  if (!bitmaps.has(name)) {
    const loading = fetch(`${root}/picture/${name}`).then(async (reply) => {
      if (!reply.ok) throw new Error(`picture: ${reply.status}`);
      return createImageBitmap(await reply.blob());
    });
    loading.catch(() => bitmaps.delete(name));
    bitmaps.set(name, loading);
  }
  return bitmaps.get(name);
}

/* ---- one trial ---- */

async function show(next) {
  asked = next;
  if (next.stage !== "trials") { location.assign(`${root}/`); return; }
  answers = {};
  picked = [];
  flipped = 0;
  ready = false;
  panes.over = null;
  $("count").textContent = `${next.position + 1} / ${next.total}`;
  $("progress").value = next.position / next.total;
  question();
  const wanted = [...next.trial.pictures, ...next.trial.beside];
  const loaded = await load(wanted);
  if (asked !== next) return;
  next.loaded = { pictures: loaded.slice(0, design.shown), beside: loaded.slice(design.shown) };
  lay(false);
  if (next.rest !== null && rested !== next.position) await rest(next);
  begin();
  const ahead = next.next ? [...next.next.pictures, ...next.next.beside] : [];
  for (const [name, one] of bitmaps) {
    if (!wanted.includes(name) && !ahead.includes(name)) { one.then((found) => found.close(), () => {}); bitmaps.delete(name); }
  }
  ahead.forEach((name) => bitmap(name).catch(() => {}));
}

async function load(names) {
  for (;;) {
    try {
      const found = await Promise.all(names.map(bitmap));
      if ($("notice").dataset.loading) { notice(""); delete $("notice").dataset.loading; }
      return found;
    } catch {
      notice("The pictures do not load. Trying again.");
      $("notice").dataset.loading = "yes";
      await waiting(RETRY);
    }
  }
}

function begin() {
  since = performance.now();
  $("choices").style.setProperty("--least", `${design.least}s`);
  void $("choices").offsetWidth; // the line that shows the least viewing time starts from its beginning
  $("choices").classList.add("waiting");
  const now = asked;
  setTimeout(() => {
    if (asked !== now) return;
    ready = true;
    $("choices").classList.remove("waiting");
    document.body.dataset.ready = now.position;
  }, design.least * 1000);
}

async function rest(next) {
  rested = next.position;
  const button = $("goon");
  $("rest").showModal();
  for (let left = next.rest; left > 0; left--) {
    button.disabled = true;
    button.textContent = `Go on in ${left} s`;
    await waiting(1000);
  }
  button.disabled = false;
  button.textContent = "Go on";
  button.focus();
  await new Promise((done) => { $("rest").addEventListener("close", done, { once: true }); });
}

function labels() {
  return design.kind === "pairs" ? ["Left", "Right"] : design.kind === "opinion" ? ["Restoration"] : LETTERS.slice(0, design.shown);
}

/* The panes of the view that is chosen. */
function lay(keep = true) {
  const { pictures, beside } = asked.loaded;
  const named = labels();
  const input = { label: "Input", pictures: [beside[0]], kind: "beside" };
  let layers = pictures.map((picture, place) => ({ label: named[place], pictures: [picture], kind: "picture", place }));
  if (view === "slider") layers = [{ label: "Left  |  Right", pictures, kind: "slider" }, input];
  else if (view === "flicker") layers = [{ ...layers[flipped % pictures.length] }, input];
  else if (design.kind === "pairs") layers = [layers[0], input, layers[1]];
  else layers.push(input);
  panes.show(layers, [asked.trial.width, asked.trial.height], keep);
  if (design.kind === "ranking") panes.panes.filter((one) => one.kind === "picture").forEach((pane) => pane.figure.addEventListener("dblclick", () => pick(pane.place)));
  badges();
  for (const button of $("views").children) button.setAttribute("aria-pressed", button.dataset.view === view);
}

function flip() {
  if (view !== "flicker") { view = "flicker"; flipped = 0; } else flipped += 1;
  lay();
}

function over(picture) {
  panes.over = picture;
  panes.draw();
}

/* ---- answers ---- */

function criterion() {
  return design.criteria.find((one) => !(one.name in answers));
}

function question() {
  const now = criterion() || design.criteria[design.criteria.length - 1];
  $("question").textContent = now.question;
  const many = design.criteria.length;
  $("which").textContent = many > 1 ? `Question ${design.criteria.indexOf(now) + 1} of ${many}` : "";
  $("undo").disabled = busy || !(asked.undo || Object.keys(answers).length || picked.length);
}

function choices() {
  const box = $("choices");
  const add = (words, title, act) => {
    const button = element("button", words, { title });
    button.addEventListener("click", () => { act(); button.blur(); });
    box.append(button);
  };
  if (design.kind === "pairs") {
    add("← Left", "Left is better  ←", () => answer([1, 2]));
    if (design.ties) add("No difference", "No difference  ↓", () => answer([1, 1]));
    add("Right →", "Right is better  →", () => answer([2, 1]));
  } else if (design.kind === "opinion") {
    for (const level of [5, 4, 3, 2, 1]) add(`${level} ${design.scale[level]}`, `${design.scale[level]}  ${level}`, () => answer([level]));
  } else {
    LETTERS.slice(0, design.shown).forEach((letter, place) => add(letter, `Next best  ${place + 1}`, () => pick(place)));
    add("Done", "Done  Enter", ranked);
  }
}

/* A picture of a ranking: the next best. The last follows by itself. */
function pick(place) {
  if (!ready || busy || picked.includes(place)) return;
  picked.push(place);
  if (picked.length === design.shown - 1) picked.push([...Array(design.shown).keys()].find((one) => !picked.includes(one)));
  badges();
  question();
}

function badges() {
  if (design.kind !== "ranking") return;
  const named = labels();
  const buttons = [...$("choices").children];
  for (const pane of panes.panes.filter((one) => one.kind === "picture")) {
    const rank = picked.indexOf(pane.place) + 1;
    pane.caption.textContent = named[pane.place];
    if (rank) { const badge = element("span", rank); badge.className = "badge"; pane.caption.append(badge); }
  }
  buttons.slice(0, design.shown).forEach((button, place) => button.classList.toggle("chosen", picked.includes(place)));
  buttons[design.shown].disabled = picked.length < design.shown;
}

function ranked() {
  if (picked.length < design.shown) return;
  answer(Array.from({ length: design.shown }, (_, place) => picked.indexOf(place) + 1));
}

async function answer(ranks) {
  const now = criterion();
  if (!ready || busy || !now) return;
  answers[now.name] = ranks;
  picked = [];
  badges();
  if (criterion()) { question(); return; }
  busy = true;
  ready = false;
  const nonce = crypto.randomUUID ? crypto.randomUUID() : Array.from(crypto.getRandomValues(new Uint32Array(4)), (one) => one.toString(16)).join("-");
  const next = await send({ position: asked.position, nonce, answers, seconds: Math.round(performance.now() - since) / 1000 });
  busy = false;
  await show(next);
}

async function undo() {
  if (busy || !asked) return;
  if (picked.length) { picked.pop(); if (picked.length === design.shown - 1) picked.pop(); badges(); question(); return; }
  const last = design.criteria.filter((one) => one.name in answers).pop();
  if (last) { delete answers[last.name]; question(); return; }
  if (!asked.undo) return;
  busy = true;
  try {
    const next = await call("/api/undo", { position: asked.position - 1 });
    busy = false;
    rested = next.position;
    await show(next);
  } catch (error) {
    busy = false;
    notice(error.message || "No connection.");
  }
}

/* ---- keys ---- */

const MOVE = { w: [0, 1], a: [1, 0], s: [0, -1], d: [-1, 0] };

function key(event) {
  if (document.querySelector("dialog[open]") || !asked || !asked.loaded) return;
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") { event.preventDefault(); undo(); return; }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const name = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const acts = {
    Backspace: undo, u: undo, v: () => { view = VIEWS[(VIEWS.findIndex((one) => one[0] === view) + 1) % VIEWS.length][0]; lay(); }, f: flip,
    "+": () => panes.zoom(1), "=": () => panes.zoom(1), "-": () => panes.zoom(-1), 0: () => panes.native(), "?": () => $("keys").showModal(),
    " ": () => over(asked.loaded.beside[0]),
  };
  if (design.truth) acts.t = () => over(asked.loaded.beside[1]);
  for (const [letter, [dx, dy]] of Object.entries(MOVE)) acts[letter] = () => panes.move(dx * 80, dy * 80);
  if (design.kind === "pairs") Object.assign(acts, { ArrowLeft: () => answer([1, 2]), ArrowRight: () => answer([2, 1]) }, design.ties ? { ArrowDown: () => answer([1, 1]) } : {});
  if (design.kind === "opinion") for (const level of [1, 2, 3, 4, 5]) acts[level] = () => answer([level]);
  if (design.kind === "ranking") {
    for (let place = 0; place < design.shown; place++) acts[place + 1] = () => pick(place);
    acts.Enter = ranked;
  }
  const act = acts[name];
  if (!act) return;
  event.preventDefault();
  // A key that is held down judges once.
  if (event.repeat && !(name in MOVE) && name !== "+" && name !== "-") return;
  act();
}

addEventListener("keydown", key);
addEventListener("keyup", (event) => { if (event.key === " " || event.key.toLowerCase() === "t") over(null); });
addEventListener("blur", () => over(null));
VIEWS.forEach(([name, words]) => {
  const button = element("button", words, { "data-view": name, title: `${words}  V` });
  button.addEventListener("click", () => { view = name; lay(); button.blur(); });
  $("views").append(button);
});
$("smaller").addEventListener("click", () => panes.zoom(-1));
$("larger").addEventListener("click", () => panes.zoom(1));
$("zoom").addEventListener("click", () => panes.native());
$("help").addEventListener("click", () => $("keys").showModal());
$("undo").addEventListener("click", undo);
choices();

async function start() {
  const unsent = localStorage.getItem(KEPT);
  for (;;) {
    try {
      const now = await call("/api/trial");
      // What could not be sent before the window was closed is sent now.
      const ballot = unsent && JSON.parse(unsent);
      await show(ballot && ballot.position === now.position ? await send(ballot) : now);
      return;
    } catch (error) {
      if (error.status) { location.assign(`${root}/`); return; }
      notice("No connection. Trying again.");
      await waiting(RETRY);
    }
  }
}
start();
