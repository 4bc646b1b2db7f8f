/* PictureViewer: pictures of one scene, compared. One file, no dependencies, works from file:// and offline.
 *
 *   const viewer = new PictureViewer(element, {
 *     pictures: [{label: "input", src: "lq.png", thumb: "lq.webp", note: "28.1 dB"}, ...],
 *     size: [width, height],      // of the scene in pixels; by default that of the first picture that loads
 *     mode: "side",               // "side", "slider", "flicker" or "difference"
 *     a: 0, b: 1,                 // which two the last three modes compare
 *   });
 *   viewer.set({mode: "slider", a: 2});    viewer.destroy();
 *
 * Every pane shows the same part: zoom with the wheel, two fingers, the buttons or + and -; pan by dragging or with the arrows; a double
 * click goes to single pixels and back. Keys: s side by side, l slider, f flicker, d difference; space or x swaps A and B in a flicker;
 * 0 the whole picture, 1 single pixels. The difference is |A - B| x 8, made by the browser's blending: no pixel is read by a script.
 */
(function () {
  "use strict";

  const MODES = [["side", "Side by side", "s"], ["slider", "Slider", "l"], ["flicker", "Flicker", "f"], ["difference", "Difference × 8", "d"]];
  const STYLE = `
.pv{--pv-ground:#e7e7e5;--pv-ink:#1d1d1b;--pv-soft:#6a6a66;--pv-line:#cfcfca;--pv-face:#fff;--pv-accent:#0b5cad;color:var(--pv-ink);font:inherit}
@media (prefers-color-scheme:dark){.pv{--pv-ground:#232323;--pv-ink:#ececea;--pv-soft:#a3a39e;--pv-line:#454543;--pv-face:#1a1a1a;--pv-accent:#7db8f5}}
.pv [hidden]{display:none!important}
.pv-bar{display:flex;flex-wrap:wrap;gap:.5rem .9rem;align-items:center;padding:.5rem 0;font-size:.875rem}
.pv-group{display:inline-flex;border:1px solid var(--pv-line);border-radius:.4rem;overflow:hidden}
.pv button,.pv select{font:inherit;color:inherit;background:var(--pv-face);border:0;padding:.4rem .7rem;min-height:2.2rem;cursor:pointer}
.pv select{border:1px solid var(--pv-line);border-radius:.4rem;max-width:14rem}
.pv-group button+button{border-left:1px solid var(--pv-line)}
.pv button[aria-pressed=true]{background:var(--pv-accent);color:var(--pv-face)}
.pv button:focus-visible,.pv select:focus-visible,.pv-panes:focus-visible,.pv-range:focus-visible{outline:3px solid var(--pv-accent);outline-offset:2px}
.pv-zoom{color:var(--pv-soft);font-variant-numeric:tabular-nums;min-width:4em}
.pv-panes{display:grid;gap:.6rem;grid-template-columns:repeat(auto-fill,minmax(min(46%,var(--pv-min,15rem)),1fr))}
.pv-panes.pv-one{grid-template-columns:1fr}
.pv-pane{margin:0;min-width:0}
.pv-pane figcaption{display:flex;justify-content:space-between;gap:.5rem;font-size:.8125rem;padding:.25rem 0;line-height:1.3}
.pv-pane figcaption b{font-weight:600;overflow-wrap:anywhere}
.pv-pane figcaption span{color:var(--pv-soft);white-space:nowrap;font-variant-numeric:tabular-nums}
.pv-stage{position:relative;overflow:hidden;background:var(--pv-ground);touch-action:none;cursor:grab;border-radius:.25rem}
.pv-stage.pv-held{cursor:grabbing}
.pv-stage img{position:absolute;left:0;top:0;transform-origin:0 0;max-width:none;user-select:none;pointer-events:none;-webkit-user-drag:none}
.pv-stage.pv-pixels img{image-rendering:pixelated}
.pv-layer{position:absolute;inset:0}
.pv-difference .pv-layer{isolation:isolate;filter:brightness(8);background:#000}
.pv-difference .pv-layer img+img{mix-blend-mode:difference}
.pv-edge{position:absolute;top:0;bottom:0;width:2px;background:#fff;box-shadow:0 0 0 1px rgba(0,0,0,.55);pointer-events:none;transform:translateX(-1px)}
.pv-range{display:block;width:100%;margin:.5rem 0 0;accent-color:var(--pv-accent);min-height:1.75rem}
.pv-missing{position:absolute;inset:0;display:grid;place-items:center;color:var(--pv-soft);font-size:.8125rem;text-align:center;padding:.5rem}
.pv-keys{color:var(--pv-soft);font-size:.8125rem;margin:.5rem 0 0}
.pv-said{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
@media print{.pv-bar,.pv-keys{display:none}}`;

  let count = 0;

  function make(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children);
    return node;
  }

  class PictureViewer {
    constructor(element, options) {
      if (!document.getElementById("pv-style")) {
        document.head.append(make("style", { id: "pv-style" }, STYLE));
      }
      this.element = element;
      this.id = `pv-${++count}`;
      this.options = Object.assign({ pictures: [], mode: "side", a: 0, b: 1, size: null, keys: true }, options);
      this.size = this.options.size;
      this.view = { fit: true, scale: 1, x: 0.5, y: 0.5 }; // the middle of what is seen, in parts of the scene
      this.split = 50;
      this.swapped = false;
      this.pointers = new Map();
      this.build();
      this.watch = new ResizeObserver(() => this.place());
      this.watch.observe(this.panes);
      this.draw();
    }

    /* Change mode, a, b or pictures. */
    set(changes) {
      Object.assign(this.options, changes);
      if (changes.pictures) this.fill();
      this.swapped = false;
      this.draw();
    }

    destroy() {
      this.watch.disconnect();
      this.element.replaceChildren();
      this.element.classList.remove("pv");
    }

    build() {
      const { element } = this;
      element.classList.add("pv");
      this.buttons = MODES.map(([mode, words, key]) =>
        make("button", { type: "button", title: `key ${key}`, "data-mode": mode, onclick: () => this.set({ mode }) }, words));
      this.chooseA = make("select", { "aria-label": "Picture A", onchange: () => this.set({ a: Number(this.chooseA.value) }) });
      this.chooseB = make("select", { "aria-label": "Picture B", onchange: () => this.set({ b: Number(this.chooseB.value) }) });
      this.swap = make("button", { type: "button", title: "space or x", onclick: () => this.flick() }, "Swap");
      this.pair = make("span", { class: "pv-pair" }, "A ", this.chooseA, " B ", this.chooseB, " ", make("span", { class: "pv-group" }, this.swap));
      this.percent = make("output", { class: "pv-zoom" });
      const zoom = make("span", { class: "pv-group", role: "group", "aria-label": "Zoom" },
        make("button", { type: "button", "aria-label": "Smaller", onclick: () => this.zoom(1 / 1.5) }, "−"),
        make("button", { type: "button", "aria-label": "Larger", onclick: () => this.zoom(1.5) }, "+"),
        make("button", { type: "button", onclick: () => this.whole() }, "Whole"),
        make("button", { type: "button", "aria-label": "Single pixels, 1 to 1", onclick: () => this.pixels() }, "1 : 1"));
      this.panes = make("div", { class: "pv-panes", tabindex: 0, role: "group", "aria-label": "Pictures", "aria-describedby": `${this.id}-keys`,
        onkeydown: (event) => this.key(event) });
      this.range = make("input", { type: "range", class: "pv-range", min: 0, max: 100, step: 0.5, value: 50, "aria-label": "Where A ends and B begins",
        oninput: () => { this.split = Number(this.range.value); this.place(); } });
      this.said = make("span", { class: "pv-said", "aria-live": "polite" });
      this.keys = make("p", { class: "pv-keys", id: `${this.id}-keys` },
        "Drag to pan, scroll or pinch to zoom, double-click for single pixels. Keys: + − 0 1, arrows; s side by side, l slider, f flicker " +
        "(space swaps), d difference.");
      const modes = make("span", { class: "pv-group", role: "group", "aria-label": "Comparison" }, ...this.buttons);
      element.replaceChildren(make("div", { class: "pv-bar" }, modes, this.pair, zoom, this.percent), this.panes, this.range, this.keys, this.said);
      this.fill();
    }

    fill() {
      for (const select of [this.chooseA, this.chooseB]) {
        select.replaceChildren(...this.options.pictures.map((one, number) => make("option", { value: number }, one.label)));
      }
    }

    draw() {
      const { pictures, mode } = this.options;
      const last = pictures.length - 1;
      this.options.a = Math.min(Math.max(this.options.a, 0), last);
      this.options.b = Math.min(Math.max(this.options.b, 0), last);
      this.buttons.forEach((one) => one.setAttribute("aria-pressed", one.dataset.mode === mode));
      this.chooseA.value = this.options.a;
      this.chooseB.value = this.options.b;
      this.pair.hidden = mode === "side" || last < 1;
      this.swap.parentNode.hidden = mode !== "flicker";
      this.range.hidden = mode !== "slider";
      this.panes.className = `pv-panes pv-${mode}${mode === "side" ? "" : " pv-one"}`;
      this.stages = [];
      if (last < 0) { this.panes.replaceChildren(); return; }
      const a = pictures[this.options.a], b = pictures[this.options.b];
      const shown = { side: () => pictures.map((one) => this.pane([one], one.label, one.note)), slider: () => [this.pane([a, b], `${a.label} | ${b.label}`, "")],
        flicker: () => [this.pane([a, b], "", "")], difference: () => [this.pane([a, b], `|${a.label} − ${b.label}| × 8`, "")] };
      this.panes.replaceChildren(...shown[mode]());
      this.place();
      if (mode !== "flicker") this.say(MODES.find((one) => one[0] === mode)[1]);
    }

    pane(layers, label, note) {
      const layer = make("div", { class: "pv-layer" });
      const stage = make("div", { class: "pv-stage" }, layer);
      layers.forEach((one) => layer.append(this.picture(one, stage)));
      if (this.options.mode === "slider") stage.append(make("span", { class: "pv-edge" }));
      const caption = make("figcaption", {}, make("b", {}, label || ""), make("span", {}, note || ""));
      this.stages.push({ stage, layer, caption, layers });
      stage.addEventListener("pointerdown", (event) => this.down(event, stage));
      stage.addEventListener("pointermove", (event) => this.move(event, stage));
      for (const end of ["pointerup", "pointercancel"]) stage.addEventListener(end, (event) => this.up(event, stage));
      stage.addEventListener("wheel", (event) => this.wheel(event, stage), { passive: false });
      stage.addEventListener("dblclick", (event) => (this.view.fit ? this.pixels(this.where(event, stage)) : this.whole()));
      return make("figure", { class: "pv-pane" }, stage, caption);
    }

    picture(one, stage) {
      if (!one.src && !one.thumb) {
        return make("span", { class: "pv-missing" }, one.missing || "no picture");
      }
      const image = make("img", { alt: one.label, draggable: "false", loading: "lazy", decoding: "async" });
      image.addEventListener("load", () => {
        if (!this.size && image.naturalWidth) { this.size = [image.naturalWidth, image.naturalHeight]; this.place(); }
      });
      image.addEventListener("error", () => {
        // The full picture is not where it was: the small one shows what it can.
        if (one.thumb && image.getAttribute("src") !== one.thumb) image.src = one.thumb;
        else image.replaceWith(make("span", { class: "pv-missing" }, "picture not found"));
      });
      image.src = one.src || one.thumb;
      return image;
    }

    /* Put every picture where the view says. */
    place() {
      const [width, height] = this.size || [4, 3];
      const { mode } = this.options;
      const low = Math.max(160, window.innerHeight * 0.72);
      for (const { stage, layer, caption, layers } of this.stages) {
        const across = stage.clientWidth || stage.parentNode.clientWidth;
        const tall = Math.round(Math.min((across * height) / width, low));
        stage.style.height = `${tall}px`;
        const fit = Math.min(across / width, tall / height);
        if (this.view.fit) { this.view.scale = fit; this.view.x = this.view.y = 0.5; }
        this.fit = fit;
        const { scale } = this.view;
        stage.classList.toggle("pv-pixels", scale * window.devicePixelRatio >= 2);
        const left = across / 2 - this.view.x * width * scale, top = tall / 2 - this.view.y * height * scale;
        [...layer.children].forEach((node, number) => {
          if (node.tagName !== "IMG") return;
          node.style.width = `${width}px`;
          node.style.height = `${height}px`;
          node.style.transform = `translate(${left}px,${top}px) scale(${scale})`;
          node.style.visibility = mode === "flicker" && (number === 1) !== this.swapped ? "hidden" : "visible";
          // The slider cuts A off from the edge on; the cut is in the picture's own pixels.
          const cut = ((this.split / 100) * across - left) / scale;
          node.style.clipPath = mode === "slider" && number === 1 ? `inset(0 0 0 ${Math.max(0, cut)}px)` : "none";
        });
        const edge = stage.querySelector(".pv-edge");
        if (edge) edge.style.left = `${this.split}%`;
        if (mode === "flicker") {
          const now = layers[this.swapped ? 1 : 0];
          caption.replaceChildren(make("b", {}, `${this.swapped ? "B" : "A"}: ${now.label}`), make("span", {}, now.note || ""));
        }
      }
      this.percent.textContent = this.size ? `${Math.round(this.view.scale * window.devicePixelRatio * 100)} %` : "";
    }

    flick() {
      this.swapped = !this.swapped;
      this.place();
      this.say(this.options.pictures[this.swapped ? this.options.b : this.options.a].label);
    }

    say(words) { this.said.textContent = words; }

    whole() { this.view.fit = true; this.place(); }

    pixels(at) { this.zoom(1 / window.devicePixelRatio / this.view.scale, at); }

    /* Zoom by a factor about a place, in parts of the scene; what is there stays there. */
    zoom(factor, at) {
      const about = at || [this.view.x, this.view.y];
      const least = Math.min(this.fit, 1 / window.devicePixelRatio) / 2;
      const scale = Math.min(Math.max(this.view.scale * factor, least), 64);
      const kept = this.view.scale / scale;
      this.view = { fit: false, scale, x: about[0] + (this.view.x - about[0]) * kept, y: about[1] + (this.view.y - about[1]) * kept };
      this.inside();
      this.place();
    }

    pan(dx, dy) {
      const [width, height] = this.size || [4, 3];
      this.view = { fit: false, scale: this.view.scale, x: this.view.x - dx / (width * this.view.scale), y: this.view.y - dy / (height * this.view.scale) };
      this.inside();
      this.place();
    }

    inside() {
      this.view.x = Math.min(Math.max(this.view.x, 0), 1);
      this.view.y = Math.min(Math.max(this.view.y, 0), 1);
    }

    /* Where a pointer is, in parts of the scene. */
    where(event, stage) {
      const [width, height] = this.size || [4, 3];
      const box = stage.getBoundingClientRect();
      return [this.view.x + (event.clientX - box.left - box.width / 2) / (width * this.view.scale),
        this.view.y + (event.clientY - box.top - box.height / 2) / (height * this.view.scale)];
    }

    wheel(event, stage) {
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), this.where(event, stage));
    }

    down(event, stage) {
      // Pointers of programs that test a page cannot be captured.
      try { stage.setPointerCapture(event.pointerId); } catch (error) { if (error.name !== "NotFoundError") throw error; }
      this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
      stage.classList.add("pv-held");
      if (this.options.mode === "slider" && this.pointers.size === 1) {
        const box = stage.getBoundingClientRect();
        const edge = box.left + (this.split / 100) * box.width;
        this.sliding = Math.abs(event.clientX - edge) < 24;
      }
    }

    move(event, stage) {
      const before = this.pointers.get(event.pointerId);
      if (!before) return;
      const now = [event.clientX, event.clientY];
      if (this.pointers.size === 1 && this.sliding) {
        const box = stage.getBoundingClientRect();
        this.split = Math.min(Math.max(((event.clientX - box.left) / box.width) * 100, 0), 100);
        this.range.value = this.split;
        this.place();
      } else if (this.pointers.size === 1) {
        this.pan(now[0] - before[0], now[1] - before[1]);
      } else {
        const other = [...this.pointers].find(([number]) => number !== event.pointerId)[1];
        const apart = (one) => Math.hypot(one[0] - other[0], one[1] - other[1]) || 1;
        const middle = { clientX: (now[0] + other[0]) / 2, clientY: (now[1] + other[1]) / 2 };
        this.zoom(apart(now) / apart(before), this.where(middle, stage));
        this.pan((now[0] - before[0]) / 2, (now[1] - before[1]) / 2);
      }
      this.pointers.set(event.pointerId, now);
    }

    up(event, stage) {
      this.pointers.delete(event.pointerId);
      this.sliding = false;
      if (!this.pointers.size) stage.classList.remove("pv-held");
    }

    key(event) {
      if (!this.options.keys || event.ctrlKey || event.metaKey || event.altKey) return;
      const mode = MODES.find((one) => one[2] === event.key.toLowerCase());
      const step = 60;
      const acts = { "+": () => this.zoom(1.5), "=": () => this.zoom(1.5), "-": () => this.zoom(1 / 1.5), 0: () => this.whole(), 1: () => this.pixels(),
        ArrowLeft: () => this.pan(step, 0), ArrowRight: () => this.pan(-step, 0), ArrowUp: () => this.pan(0, step), ArrowDown: () => this.pan(0, -step),
        " ": () => this.options.mode === "flicker" && this.flick(), x: () => this.options.mode === "flicker" && this.flick() };
      const act = mode ? () => this.set({ mode: mode[0] }) : acts[event.key];
      if (!act) return;
      event.preventDefault();
      act();
    }
  }

  window.PictureViewer = PictureViewer;
})();
