// The page's behaviour: one device at a time, charts that fit its width, tables that sort, search and unfold.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("page-data").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");

  const drawn = new Map();
  function theme(place) {
    const chosen = data.themes[dark.matches ? "dark" : "light"];
    // Beside a narrow chart's labels there is room for one name, not for a row of them.
    return place.clientWidth > 480 ? chosen : { ...chosen, legend: { ...chosen.legend, columns: 1 } };
  }
  function draw(place) {
    const options = { actions: false, renderer: "svg", config: theme(place) };
    const before = drawn.get(place);
    const next = vegaEmbed(place, data.charts[place.dataset.chart], options).then((result) => {
      place.style.minHeight = "";
      return result;
    });
    drawn.set(place, next);
    if (before) before.then((result) => result.finalize());
    next.catch((error) => { place.textContent = `This chart cannot be drawn: ${error.message}`; });
  }
  // What is in view comes first; the rest follows one by one, so that the page can also be printed without scrolling.
  const places = [...document.querySelectorAll("[data-chart]")];
  function drawOnce(place) {
    if (!drawn.has(place)) draw(place);
  }
  const watcher = new IntersectionObserver((entries) => {
    entries.filter((entry) => entry.isIntersecting).forEach((entry) => drawOnce(entry.target));
  });
  places.forEach((place) => watcher.observe(place));
  function drawRest() {
    const next = places.find((place) => !drawn.has(place) && place.clientWidth > 0); // a hidden device's have no width
    if (!next) return;
    drawOnce(next);
    const goOn = () => setTimeout(drawRest);
    drawn.get(next).then(goOn, goOn);
  }
  dark.addEventListener("change", () => [...drawn.keys()].forEach(draw));

  const devices = [...document.querySelectorAll("[data-device]")];
  const links = [...document.querySelectorAll(".devices a")];
  function choose() {
    if (devices.length < 2) return;
    const wanted = decodeURIComponent(location.hash.slice(1));
    const shown = devices.find((device) => device.id === wanted) || devices[0];
    devices.forEach((device) => { device.hidden = device !== shown; });
    links.forEach((link) => link.toggleAttribute("aria-current", link.hash.slice(1) === shown.id));
  }
  addEventListener("hashchange", () => { choose(); drawRest(); });
  choose();
  drawRest();

  function value(body, column) {
    const cell = body.rows[0].cells[column];
    if (!("v" in cell.dataset)) return cell.textContent.trim().toLowerCase();
    return cell.dataset.v === "" ? null : Number(cell.dataset.v);
  }
  function sort(table, heading, column) {
    const down = heading.getAttribute("aria-sort") === "ascending";
    table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const keyed = [...table.tBodies].map((body) => [value(body, column), body]);
    keyed.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null); // without a number: last, either way
      const order = typeof a === "number" ? a - b : a.localeCompare(b, undefined, { numeric: true });
      return down ? -order : order;
    });
    table.append(...keyed.map(([, body]) => body));
  }
  document.querySelectorAll("table.sortable").forEach((table) => {
    [...table.tHead.rows[0].cells].forEach((heading, column) => {
      heading.querySelector("button").addEventListener("click", () => sort(table, heading, column));
    });
  });

  function element(name, text) {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    return made;
  }
  function tableOf(rows) {
    const table = element("table");
    const head = table.createTHead().insertRow();
    data.headings.forEach((heading) => head.append(element("th", heading)));
    const inner = table.createTBody();
    rows.forEach((cells) => {
      const row = inner.insertRow();
      cells.forEach((cell, column) => {
        const made = element("td", cell);
        if (column >= 4 && column < cells.length - 1) made.className = "n";
        row.append(made);
      });
    });
    [...head.cells].slice(4, -1).forEach((cell) => { cell.className = "n"; });
    return table;
  }
  // A launch's details are in the page. Those of a case are made when somebody asks: there may be thousands.
  function unfold(body, rows) {
    const button = body.querySelector(".unfold");
    const open = button.getAttribute("aria-expanded") === "true";
    button.setAttribute("aria-expanded", String(!open));
    if (!body.rows[1]) {
      const line = body.insertRow();
      line.className = "unfolded";
      const cell = line.insertCell();
      cell.colSpan = body.rows[0].cells.length;
      cell.append(tableOf(rows));
    }
    body.rows[1].hidden = open;
  }
  const controls = new Map([...document.querySelectorAll("[data-for]")].map((box) => [box.dataset.for, box]));
  document.querySelectorAll("table.cases").forEach((table) => {
    const details = data.details[table.dataset.details];
    const bodies = [...table.tBodies].map((body) => {
      const rows = details ? details[Number(body.dataset.case)] : [];
      body.querySelector(".unfold").addEventListener("click", () => unfold(body, rows));
      return [body, `${body.textContent} ${rows.flat().join(" ")}`.toLowerCase()];
    });
    const box = controls.get(table.dataset.details);
    if (!box) return;
    const [search, losers, count] = ["search", "losers", "count"].map((name) => box.querySelector(`[data-${name}]`));
    function filter() {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const [body, text] of bodies) {
        body.hidden = (losers?.checked && !("loss" in body.dataset)) || !words.every((word) => text.includes(word));
        shown += !body.hidden;
      }
      count.textContent = `${shown.toLocaleString("en")} of ${bodies.length.toLocaleString("en")}`;
    }
    search.addEventListener("input", filter);
    losers?.addEventListener("change", filter);
    filter();
  });
})();
