// What the page does by itself: draws its charts, sorts and copies its tables, and prepares for
// printing. The figures and the colors of a dark page come from Python.
(() => {
  "use strict";

  const PRINT_WIDTH = 680; // of the page in report.css, for A4
  const PRINT_GAP = 20;
  const NARROW = 560;

  const root = document.documentElement;
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  root.classList.add("js");

  const figures = read("figures");
  const darkOf = read("theme");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const paper = matchMedia("print");
  const coarse = matchMedia("(pointer: coarse)");
  let printing = paper.matches;

  // A copy of a figure, with every color of the light page replaced by its dark twin.
  const colored = (value, isDark) => {
    if (typeof value === "string") return (isDark && darkOf[value]) || value;
    if (Array.isArray(value)) return value.map((each) => colored(each, isDark));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, colored(each, isDark)]));
    }
    return value;
  };

  // What little room asks for: long names and titles in two lines, fewer ticks, smaller letters.
  const narrowed = (figure, width) => {
    const {xaxis, yaxis} = figure.layout;
    for (const side of [xaxis, yaxis]) {
      side.tickfont.size = 11;
      if (side.title) side.title.text = side.title.text.replace(" (", "<br>(");
      if (side.ticktext) side.ticktext = side.ticktext.map((text) => text.replace(" = ", "<br>= "));
      if (side.ticktext && side === xaxis && side.ticktext.every((text) => /^layer \d+$/.test(text))) {
        side.ticktext = side.ticktext.map((text) => text.slice(6));
      }
    }
    if (!xaxis.ticktext) xaxis.nticks = 5;
    const room = (0.6 * width) / 7; // letters beside each other
    const isNumber = (text) => /^[\d.,−+ %\u00a0]*$/.test(text);
    while (xaxis.ticktext && xaxis.ticktext.every(isNumber) && xaxis.ticktext.length > 3
           && xaxis.ticktext.join("  ").length > room) {
      xaxis.ticktext = xaxis.ticktext.filter((_, place) => place % 2 === 0);
      xaxis.tickvals = xaxis.tickvals.filter((_, place) => place % 2 === 0);
    }
    for (const trace of figure.data) {
      if (!trace.texttemplate) continue;
      const longest = Math.max(...trace.text.flat().map((text) => text.length));
      if (6 * longest * trace.text[0].length > 0.62 * width) {
        delete trace.texttemplate; // too small to read: a scale says the same
        trace.showscale = true;
      }
    }
    return figure;
  };

  const widthOf = (plot) => {
    if (!printing) return plot.clientWidth;
    return plot.closest(".half") ? (PRINT_WIDTH - PRINT_GAP) / 2 : PRINT_WIDTH;
  };

  const draw = (plot) => {
    const width = widthOf(plot);
    if (!width) return;
    let figure = colored(figures[plot.dataset.figure], dark.matches && !printing);
    if (width < NARROW) figure = narrowed(figure, width);
    figure.layout.width = width;
    figure.layout.autosize = false;
    figure.layout.dragmode = coarse.matches ? false : "zoom";
    Plotly.react(plot, figure.data, figure.layout, {displayModeBar: false, doubleClick: "reset"});
    for (const drawing of all("svg", plot)) drawing.setAttribute("aria-hidden", "true");
    plot.dataset.width = width;
  };

  const plots = all(".plot");
  const drawAll = () => plots.forEach(draw);

  // One plot in a frame, so that the page can be read while the others follow.
  const drawOneByOne = (waiting) => {
    if (!waiting.length) {
      root.dataset.ready = "yes";
      return;
    }
    draw(waiting[0]);
    setTimeout(() => drawOneByOne(waiting.slice(1)));
  };

  const turn = (toPrint) => {
    if (printing === toPrint) return;
    printing = toPrint;
    drawAll();
  };
  addEventListener("beforeprint", () => turn(true));
  addEventListener("afterprint", () => turn(false));
  paper.addEventListener("change", (event) => turn(event.matches));
  dark.addEventListener("change", drawAll);

  let resizing = 0;
  addEventListener("resize", () => {
    clearTimeout(resizing);
    resizing = setTimeout(() => {
      for (const plot of plots) if (widthOf(plot) !== Number(plot.dataset.width)) draw(plot);
    }, 120);
  });

  // Tables
  const shown = (row, column) => row.cells[column].textContent;
  const numberIn = (text) => (text === "" ? null : Number(text.replaceAll(",", "")));

  const sort = (header) => {
    const body = header.closest("table").tBodies[0];
    const column = header.cellIndex;
    const up = header.getAttribute("aria-sort") !== "ascending";
    const numeric = header.classList.contains("number");
    const keyed = [...body.rows].map((row) => [numeric ? numberIn(shown(row, column)) : shown(row, column), row]);
    keyed.sort(([a], [b]) => {
      if (a === b) return 0;
      if (a === null) return 1; // what is not known comes last, whichever way
      if (b === null) return -1;
      const rises = numeric ? a - b : a.localeCompare(b, "en", {numeric: true});
      return up ? rises : -rises;
    });
    for (const other of header.parentElement.cells) other.setAttribute("aria-sort", "none");
    header.setAttribute("aria-sort", up ? "ascending" : "descending");
    body.append(...keyed.map(([, row]) => row));
  };

  const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  // A spreadsheet would run a text that begins like a formula.
  const inert = (text) => (/^[=+@\t-]/.test(text) ? `'${text}` : text);
  const csv = (table) => {
    const numeric = [...table.tHead.rows[0].cells].map((cell) => cell.classList.contains("number"));
    const lines = [...table.rows].map((row, line) =>
      [...row.cells].map((cell, column) => {
        const text = cell.textContent;
        return quoted(line && numeric[column] ? text.replaceAll(",", "") : inert(text));
      }).join(","),
    );
    return `${lines.join("\n")}\n`;
  };

  // The clipboard may be refused to a file; an invisible text field still works.
  const copy = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      const field = document.createElement("textarea");
      field.value = text;
      field.className = "unseen";
      document.body.append(field);
      field.select();
      const done = document.execCommand("copy");
      field.remove();
      return done;
    }
  };

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.parentElement.matches(".sortable th")) sort(button.parentElement);
    const tools = button.closest(".tools");
    if (!tools) return;
    const said = tools.querySelector(".said");
    said.textContent = ""; // the same words again would not be read out
    if (button.matches(".copy")) {
      const done = await copy(csv(tools.parentElement.querySelector("table")));
      button.focus();
      said.textContent = done ? "Copied." : "The browser refused; select the table instead.";
    }
    if (button.matches(".save")) {
      const plot = tools.closest(".chart").querySelector(".plot");
      const size = {width: plot.clientWidth, height: plot.clientHeight};
      await Plotly.downloadImage(plot, {format: "svg", filename: plot.dataset.figure, ...size});
      said.textContent = "Saved.";
    }
  });

  for (const button of all(".sortable th button")) {
    button.disabled = false;
    button.parentElement.setAttribute("aria-sort", "none");
  }
  drawOneByOne(plots);
  spikemeter.mount(document.getElementById("whatif"), read("whatif-model"));
})();
