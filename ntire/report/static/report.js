/* What the pages do beyond showing: tables that sort, galleries that find, viewers that open. */
(function () {
  "use strict";

  const inlined = document.getElementById("pictures-data");
  const data = inlined ? JSON.parse(inlined.textContent) : {};
  for (const image of document.querySelectorAll("img[data-inlined]")) image.src = data[image.dataset.inlined] || "";

  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      if (!head.dataset.sort) return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const first = head.dataset.first || "ascending";
        const now = head.getAttribute("aria-sort");
        const order = !now ? first : now === "ascending" ? "descending" : "ascending";
        heads.forEach((one) => one.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", order);
        sort(table, column, head.dataset.sort === "number", order === "ascending" ? 1 : -1);
      });
    });
  }

  function sort(table, column, numbers, way) {
    const value = (row) => {
      const cell = row.cells[column];
      if (!numbers) return cell.textContent.trim();
      return cell.dataset.value === undefined || cell.dataset.value === "" ? NaN : cell.dataset.value === "inf" ? Infinity : Number(cell.dataset.value);
    };
    const rows = [...table.tBodies[0].rows].map((row) => [value(row), row]);
    rows.sort(([a], [b]) => {
      if (!numbers) return way * a.localeCompare(b, undefined, { numeric: true });
      // What has no number stays last, whatever the order.
      if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
      return a === b ? 0 : a < b ? -way : way;
    });
    table.tBodies[0].append(...rows.map(([, row]) => row));
  }

  for (const form of document.querySelectorAll("form.choose")) {
    const gallery = document.getElementById(form.dataset.gallery);
    const all = [...gallery.children];
    const number = (one, key) => (one.dataset[key] === "nan" ? -Infinity : Number(one.dataset[key]));
    const orders = {
      name: () => all,
      hard: () => [...all].sort((a, b) => number(a, "hard") - number(b, "hard")),
      apart: () => [...all].sort((a, b) => number(b, "apart") - number(a, "apart")),
    };
    const show = () => {
      const words = form.elements.find.value.toLowerCase();
      gallery.replaceChildren(...orders[form.elements.order.value]());
      all.forEach((one) => { one.hidden = !one.dataset.name.toLowerCase().includes(words); });
      form.querySelector("output").value = `${all.filter((one) => !one.hidden).length} pictures`;
    };
    form.addEventListener("input", show);
    form.addEventListener("submit", (event) => event.preventDefault());
  }

  const open = (place) => {
    const source = place.querySelector("script");
    if (!source) return;
    const options = JSON.parse(source.textContent);
    for (const one of options.pictures) if (one.inlined) one.src = data[one.inlined];
    place.viewer = new window.PictureViewer(place, options);
  };
  // In one file there are many viewers: each opens when it comes near.
  const near = new IntersectionObserver((seen) => {
    for (const one of seen) if (one.isIntersecting) { near.unobserve(one.target); open(one.target); }
  }, { rootMargin: "600px" });
  for (const place of document.querySelectorAll(".viewer")) near.observe(place);

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
    const links = { n: "next", p: "prev" };
    const steps = document.querySelectorAll(`.steps a[rel=${links[event.key] || "none"}]`);
    if (steps.length === 1) steps[0].click();
  });
})();
