/* Panes: pictures of one region, pixel by pixel, zoomed and moved together. Drawn on canvases in device pixels, so that at 100 % one pixel of a
 * picture is one of the screen, whatever the browser's zoom. */

const ZOOMS = [0.25, 0.5, 1, 2, 3, 4, 6, 8];

export class Panes {
  constructor(stage, changed) {
    this.stage = stage;
    this.changed = changed;
    this.panes = [];
    this.scale = 1;
    this.x = this.y = 0.5; // what is in the middle, in parts of the picture
    this.split = 0.5;
    this.over = null; // a picture that is shown in place of all
    this.size = [1, 1];
    this.watch = new ResizeObserver(() => this.draw());
    new ResizeObserver(() => this.arrange()).observe(stage);
  }

  /* layers: for each pane {label, pictures: [ImageBitmap], kind: "picture", "beside" or "slider"}; a slider has two pictures. */
  show(layers, size, keep) {
    this.size = size;
    if (!keep) this.reset();
    this.watch.disconnect();
    this.panes = layers.map((layer) => {
      const figure = document.createElement("figure");
      const caption = document.createElement("figcaption");
      const canvas = document.createElement("canvas");
      figure.className = "pane";
      caption.textContent = layer.label;
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", layer.label);
      canvas.classList.toggle("slides", layer.kind === "slider");
      figure.append(caption, canvas);
      const pane = { ...layer, figure, caption, canvas };
      this.listen(pane);
      this.watch.observe(canvas);
      return pane;
    });
    this.stage.replaceChildren(...this.panes.map((pane) => pane.figure));
    this.arrange();
  }

  /* The grid in which the pictures come out largest. */
  arrange() {
    const count = this.panes.length;
    if (!count) return;
    const { clientWidth: width, clientHeight: height } = this.stage;
    const side = (columns) => Math.min(width / columns / this.size[0], height / Math.ceil(count / columns) / this.size[1]);
    let best = 1;
    for (let columns = 2; columns <= count; columns++) if (side(columns) > side(best) * 1.02) best = columns;
    // Where not all are in one row, what is judged comes first.
    for (const pane of this.panes) pane.figure.style.order = best < count && pane.kind === "beside" ? 1 : 0;
    // No wider than the pictures need: on a large screen they stay side by side.
    const wide = Math.max(320, (this.size[0] * this.scale) / window.devicePixelRatio + 24);
    this.stage.style.gridTemplateColumns = `repeat(${best}, minmax(0, ${wide}px))`;
    this.draw();
  }

  reset() {
    this.scale = 1;
    this.x = this.y = 0.5;
  }

  draw() {
    for (const pane of this.panes) {
      const { canvas } = pane;
      const ratio = window.devicePixelRatio;
      const box = canvas.getBoundingClientRect();
      const [width, height] = [Math.round(box.width * ratio), Math.round(box.height * ratio)];
      if (!width || !height) continue;
      if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
      const context = canvas.getContext("2d", { alpha: true });
      context.clearRect(0, 0, width, height);
      // Larger pixels stay squares; smaller ones are averaged.
      context.imageSmoothingEnabled = this.scale < 1;
      context.imageSmoothingQuality = "high";
      const [left, top] = this.corner(width, height);
      const [first, second] = this.over ? [this.over] : pane.pictures;
      this.paint(context, first, left, top);
      if (second) {
        const edge = Math.round(Math.min(Math.max(left + this.size[0] * this.scale * this.split, 0), width));
        const [upper, lower] = [Math.max(top, 0), Math.min(top + this.size[1] * this.scale, height)];
        context.save();
        context.beginPath();
        context.rect(edge, 0, width - edge, height);
        context.clip();
        context.clearRect(edge, 0, width - edge, height);
        this.paint(context, second, left, top);
        context.restore();
        context.fillStyle = "#fff";
        context.fillRect(edge - 1, upper, 2, lower - upper);
      }
    }
    this.changed(this.scale);
  }

  paint(context, picture, left, top) {
    if (picture) context.drawImage(picture, left, top, this.size[0] * this.scale, this.size[1] * this.scale);
  }

  /* Where the picture's corner lies, in whole device pixels. */
  corner(width, height) {
    const place = (pane, picture, at) => {
      const whole = picture * this.scale;
      const wanted = pane / 2 - at * whole;
      return Math.round(whole <= pane ? (pane - whole) / 2 : Math.min(0, Math.max(pane - whole, wanted)));
    };
    return [place(width, this.size[0], this.x), place(height, this.size[1], this.y)];
  }

  zoom(steps) {
    const now = ZOOMS.findIndex((one) => one >= this.scale);
    this.scale = ZOOMS[Math.min(Math.max(now + steps, 0), ZOOMS.length - 1)];
    this.arrange();
  }

  native() {
    this.scale = 1;
    this.arrange();
  }

  /* By device pixels. */
  move(dx, dy) {
    const canvas = this.panes[0].canvas;
    const within = (at, by, picture, pane) => {
      const whole = picture * this.scale;
      const half = Math.min(0.5, pane / 2 / whole);
      return Math.min(Math.max(at - by / whole, half), 1 - half);
    };
    this.x = within(this.x, dx, this.size[0], canvas.width);
    this.y = within(this.y, dy, this.size[1], canvas.height);
    this.draw();
  }

  listen(pane) {
    const { canvas } = pane;
    let last = null;
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      canvas.setPointerCapture(event.pointerId);
      last = [event.clientX, event.clientY];
      canvas.classList.add("held");
      if (pane.kind === "slider") this.slide(event, canvas);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!last) return;
      if (pane.kind === "slider") this.slide(event, canvas);
      else this.move((event.clientX - last[0]) * window.devicePixelRatio, (event.clientY - last[1]) * window.devicePixelRatio);
      last = [event.clientX, event.clientY];
    });
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, () => {
        last = null;
        canvas.classList.remove("held");
      });
    }
    canvas.addEventListener("wheel", (event) => {
      if (event.ctrlKey) return;
      event.preventDefault();
      this.zoom(event.deltaY < 0 ? 1 : -1);
    }, { passive: false });
  }

  slide(event, canvas) {
    const at = (event.clientX - canvas.getBoundingClientRect().left) * window.devicePixelRatio;
    this.split = Math.min(Math.max((at - this.corner(canvas.width, canvas.height)[0]) / (this.size[0] * this.scale), 0), 1);
    this.draw();
  }
}
