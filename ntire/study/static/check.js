/* The check of the screen: the browser's zoom, and whether near black, near white and a faint tint can be told. Whoever fails is advised, not sent away. */

const root = document.querySelector("meta[name=root]").content;
const form = document.querySelector("meta[name=form]").content;
const $ = (id) => document.getElementById(id);
const SLOTS = 6;

/* What the patches are drawn with; `odd` is a faint tint among greys. */
const TESTS = [
  { kind: "dark", words: "How many squares do you see on the black field?", ground: 0, patch: 10 },
  { kind: "light", words: "How many squares do you see on the white field?", ground: 255, patch: 247 },
  { kind: "colour", words: "Which square has another colour than the rest? Count from the left.", ground: 118, patch: 150 },
];
const ROUNDS = [...TESTS, ...TESTS];
let found, at, answer;

function browserZoom() {
  // Only some browsers tell the window's outer width truly; others give 0, or 1 too many.
  const zoom = window.outerWidth && window.innerWidth ? Math.round((window.outerWidth / window.innerWidth) * 20) / 20 : 1;
  return zoom > 0.2 && zoom < 5 ? zoom : 1;
}

function look() {
  const zoom = browserZoom();
  const pinched = window.visualViewport && Math.abs(window.visualViewport.scale - 1) > 0.01;
  const facts = [
    [window.innerWidth >= 1000 && window.innerHeight >= 600, `The window has ${window.innerWidth} × ${window.innerHeight}.`, "Make it larger, best of all the whole screen (F11)."],
    [Math.abs(zoom - 1) < 0.08 && !pinched, "The browser's zoom is 100 %.", "Set the browser's zoom to 100 %: Ctrl and 0."],
    [true, `One pixel of a picture is one of the screen, whose scaling is ${Math.round(window.devicePixelRatio * 100)} %.`, ""],
    [false, "", "Turn off night light and filters, and avoid reflections on the screen."],
  ];
  $("findings").replaceChildren(...facts.map(([good, fact, advice]) => {
    const item = document.createElement("li");
    item.className = good ? "" : "advice";
    item.textContent = good ? fact : advice;
    return item;
  }));
}

function begin() {
  found = { dark: 0, light: 0, colour: 0 };
  at = 0;
  $("outcome").hidden = true;
  $("test").hidden = false;
  ask();
}

function ask() {
  const test = ROUNDS[at];
  answer = 1 + Math.floor(Math.random() * (test.kind === "colour" ? SLOTS : SLOTS - 1));
  $("question").textContent = test.words;
  $("step").textContent = `${at + 1} of ${ROUNDS.length}.`;
  $("patches").dataset.kind = test.kind;
  const first = test.kind === "colour" ? 1 : 0;
  $("answers").replaceChildren(...Array.from({ length: SLOTS + 1 - first }, (_, place) => {
    const button = document.createElement("button");
    button.textContent = place + first;
    button.addEventListener("click", () => take(place + first));
    return button;
  }));
  draw();
}

function draw() {
  const test = ROUNDS[at], canvas = $("patches"), ratio = window.devicePixelRatio;
  const [width, height] = [canvas.clientWidth * ratio, canvas.clientHeight * ratio];
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d");
  const grey = (level) => `rgb(${level} ${level} ${level})`;
  context.fillStyle = grey(test.ground);
  context.fillRect(0, 0, width, height);
  const side = Math.min(height * 0.45, width / SLOTS / 1.6);
  // Which places have a square: as many as the answer, by chance; of colours all of them.
  const places = Array.from({ length: SLOTS }, (_, place) => place).sort(() => Math.random() - 0.5).slice(0, test.kind === "colour" ? SLOTS : answer);
  for (const place of places) {
    const odd = test.kind === "colour" && place === answer - 1;
    context.fillStyle = odd ? `rgb(${test.patch + 5} ${test.patch - 2} ${test.patch - 9})` : grey(test.patch);
    context.fillRect((place + 0.5) * (width / SLOTS) - side / 2, (height - side) / 2, side, side);
  }
}

function take(seen) {
  if (seen === answer) found[ROUNDS[at].kind] += 1;
  at += 1;
  if (at < ROUNDS.length) ask();
  else tell();
}

function tell() {
  const right = found.dark + found.light + found.colour;
  const advice = [];
  if (found.dark < 2) advice.push("Near black was hard to tell: raise the brightness, or darken the room.");
  if (found.light < 2) advice.push("Near white was hard to tell: lower the contrast, or turn HDR and vivid modes off.");
  if (found.colour < 2) advice.push("The tint was hard to tell: turn off night light and colour filters.");
  $("test").hidden = true;
  $("outcome").hidden = false;
  $("verdict").textContent = right === ROUNDS.length ? "Your screen shows everything that it must." : `${advice.join(" ")} If you cannot change it, go on all the same.`;
  $("go").focus();
}

async function store() {
  const screen = { width: window.innerWidth, height: window.innerHeight, ratio: window.devicePixelRatio, zoom: browserZoom(), ...found };
  const reply = await fetch(`${root}/check`, { method: "POST", headers: { "Content-Type": "application/json", "X-Form": form }, body: JSON.stringify(screen) });
  if (reply.ok) location.assign(`${root}/`);
  else $("verdict").textContent = (await reply.json()).problem;
}

addEventListener("resize", () => { look(); if (!$("test").hidden) draw(); });
addEventListener("keydown", (event) => {
  if (!$("test").hidden && /^[0-6]$/.test(event.key) && !event.ctrlKey && !event.metaKey && !event.altKey) {
    const button = [...$("answers").children].find((one) => one.textContent === event.key);
    if (button) button.click();
  }
});
$("go").addEventListener("click", store);
$("again").addEventListener("click", begin);
look();
begin();
