// Controls for what-if predictions, and what is predicted.
//
// A part of the script that `panel_script` of whatif.py puts together. Whatever comes from the
// model becomes text or a property of an element, never markup.

const PANEL_GROUPS = ["Neuron", "Surrogate", "Training", "Hardware"];
const QUIET_MS = 600;
let panels = 0;

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// Texts ----------------------------------------------------------------------------------------

// As whatif._whole and whatif._tenths
function shown(value, digits) {
  if (value >= 1e12) return value.toExponential(2);
  return value.toFixed(digits).replace(/\B(?=(\d{3})+(?!\d))/g, ",");
}

const percent = (share) => `${(100 * share).toFixed(1)} %`;

function changeText(now, before) {
  const change = (100 * (now / before - 1)).toFixed(1);
  if (Number(change) === 0) return "no change";
  return `${change > 0 ? "+" : ""}${change} %`;
}

function figuresOf(prediction, model, settings, before) {
  const perCycle = 1 / settings["hardware.clock_mhz"];
  const [low, high] = prediction.interval_cycles;
  const [least, most] = prediction.interval_accuracy;
  return {
    latency: shown(prediction.microseconds, 1),
    interval: `${shown(low * perCycle, 1)} to ${shown(high * perCycle, 1)} µs`,
    cycles: `${shown(prediction.cycles, 0)} (${shown(low, 0)} to ${shown(high, 0)})`,
    change: changeText(prediction.microseconds, before.microseconds),
    accuracy: `${percent(prediction.accuracy)} (${(100 * least).toFixed(1)} to ${percent(most)})`,
    outside: outsideText(prediction, model),
  };
}

function outsideText(prediction, { domain }) {
  const knobOf = (name) => domain.knobs[domain.feature_names.indexOf(name)] ?? name;
  const knobs = new Set(prediction.outside.map(knobOf));
  return knobs.size === 0 ? "" : `Outside the calibrated range: ${[...knobs].join(", ")}.`;
}

function isSame(value, other) {
  if (!Array.isArray(value)) return value === other;
  return value.length === other.length && value.every((each, index) => each === other[index]);
}

// Settings that differ from the configuration, as the YAML of its sections
function yamlOf(settings, own) {
  const changed = Object.keys(own).filter((key) => !isSame(settings[key], own[key]));
  const lines = changed.flatMap((key, index) => {
    const [section, name] = key.split(".");
    const value = settings[key];
    const text = Array.isArray(value) ? `[${value.join(", ")}]` : String(value);
    const isNew = index === 0 || !changed[index - 1].startsWith(`${section}.`);
    return [...(isNew ? [`${section}:`] : []), `  ${name}: ${text}`];
  });
  return lines.length === 0 ? "# no setting is changed" : lines.join("\n");
}

// Settings -------------------------------------------------------------------------------------

// The settings of one panel. Some controls follow a name, such as the slope that of the surrogate.
class PanelSettings {
  constructor(model) {
    this.model = model;
    this.reset();
  }

  reset() {
    this.values = { ...this.model.settings };
    this.chosen = new Map();
  }

  stopsOf(control) {
    return control.by === undefined ? control.values : control.values[this.values[control.by]];
  }

  get(control, values = this.values) {
    const value = values[control.key];
    return control.layer === undefined ? value : value[control.layer];
  }

  isChanged(control) {
    return this.get(control) !== this.get(control, this.model.settings);
  }

  set(control, value) {
    const { values } = this;
    if (control.layer === undefined) values[control.key] = value;
    else values[control.key] = values[control.key].with(control.layer, value);
    if (control.by !== undefined) this.chosen.set(`${control.key} ${values[control.by]}`, value);
    this.follow(control.key);
  }

  // Other settings that a name decides: what was chosen under it last, or else where it starts
  follow(leader) {
    const name = this.values[leader];
    Object.assign(this.values, this.model.brought[leader]?.[name]);
    for (const control of this.model.controls.filter(({ by }) => by === leader)) {
      if (control.keeps && this.stopsOf(control).includes(this.values[control.key])) continue;
      const last = this.chosen.get(`${control.key} ${name}`);
      this.values[control.key] = last ?? control.start[name];
    }
  }
}

// Elements -------------------------------------------------------------------------------------

function makeInput(control, id) {
  if (control.kind === "select") return make("select", { id });
  const input = make("input", { id, type: control.kind });
  if (control.kind === "range") Object.assign(input, { min: 0, step: 1 });
  return input;
}

function readInput(control, input, stops) {
  if (control.kind === "checkbox") return input.checked;
  return control.kind === "range" ? stops[Number(input.value)] : input.value;
}

function showInput(control, input, stops, value) {
  if (control.kind === "checkbox") {
    input.checked = value;
  } else if (control.kind === "range") {
    input.max = stops.length - 1;
    input.value = stops.indexOf(value);
    input.setAttribute("aria-valuetext", String(value));
  } else {
    const names = Array.from(input.options, (option) => option.value);
    if (!isSame(stops, names)) {
      input.replaceChildren(...stops.map((name) => make("option", { value: name }, name)));
    }
    input.value = value;
  }
}

// One control with its label and value; `show` brings it up to date
function makeRow(control, id, settings, onChange) {
  const input = makeInput(control, id);
  const output = make("output", { className: "whatif-value" });
  output.htmlFor.add(id);
  // A slider tells its value itself, and an output would say it once more
  output.setAttribute("aria-live", "off");
  const before = make("span", { className: "whatif-before", id: `${id}-before` });
  const row = make(
    "div",
    { className: `whatif-row whatif-${control.kind}` },
    make("label", { htmlFor: id }, control.label),
    input,
    output,
    before,
  );
  input.setAttribute("aria-describedby", before.id);
  input.addEventListener("input", () => {
    settings.set(control, readInput(control, input, settings.stopsOf(control)));
    onChange();
  });
  const show = () => {
    const stops = settings.stopsOf(control);
    row.hidden = stops.length < 2;
    if (row.hidden) return;
    const value = settings.get(control);
    showInput(control, input, stops, value);
    output.textContent = String(value);
    const isChanged = settings.isChanged(control);
    const own = settings.get(control, settings.model.settings);
    row.classList.toggle("whatif-changed", isChanged);
    before.textContent = !isChanged ? "" : own === null ? "changed" : `was ${own}`;
  };
  return { group: control.group, row, show };
}

function makeControls(rows, reset) {
  const fieldsets = PANEL_GROUPS.map((name) => {
    const own = rows.filter(({ group }) => group === name).map(({ row }) => row);
    return make("fieldset", {}, make("legend", {}, name), ...own);
  });
  const element = make("div", { className: "whatif-controls" }, ...fieldsets, reset);
  const show = () => {
    for (const { show: showRow } of rows) showRow();
    for (const fieldset of fieldsets) {
      fieldset.hidden = !fieldset.querySelector(".whatif-row:not([hidden])");
    }
  };
  return { element, show };
}

function makeFigures(confidence) {
  const [latency, interval, cycles, change, accuracy] = Array.from({ length: 5 }, () => make("dd"));
  const number = make("strong");
  latency.append(number, " µs");
  const outside = make("p", { className: "whatif-outside" });
  const pairs = [
    ["Predicted latency", latency],
    ["Change", change],
    [`${Number((100 * confidence).toPrecision(6))} % interval`, interval],
    ["Cycles", cycles],
    ["Accuracy", accuracy],
  ];
  const list = make("dl", {}, ...pairs.map(([name, of]) => make("div", {}, make("dt", {}, name), of)));
  const element = make("div", { className: "whatif-result" }, list, outside);
  const show = (figures) => {
    number.textContent = figures.latency;
    Object.entries({ interval, cycles, change, accuracy, outside }).forEach(([name, part]) => {
      part.textContent = figures[name];
    });
    change.dataset.direction = Math.sign(Number.parseFloat(figures.change)) || 0;
  };
  return { element, show };
}

function makeLayers(layers) {
  const heads = ["Layer", "Input rate", "Firing rate", "Cycles"];
  const rows = layers.map(({ name }) => {
    const cells = Array.from({ length: 3 }, () => ({ text: make("span"), bar: make("span") }));
    for (const { bar } of cells) bar.className = "whatif-bar";
    const head = make("th", { scope: "row" }, name);
    const data = cells.map(({ text, bar }) => make("td", {}, text, bar));
    return { cells, row: make("tr", {}, head, ...data) };
  });
  const element = make(
    "table",
    { className: "whatif-layers" },
    make("caption", {}, "Layers: spikes per input line or neuron and step, and cycles"),
    make("thead", {}, make("tr", {}, ...heads.map((name) => make("th", { scope: "col" }, name)))),
    make("tbody", {}, ...rows.map(({ row }) => row)),
  );
  const show = (prediction) => {
    const most = Math.max(...prediction.layers.map(({ cycles }) => cycles));
    prediction.layers.forEach((layer, index) => {
      const { input_rate: entering, firing_rate: firing, cycles } = layer;
      const texts = [shown(entering, 3), shown(firing, 3), shown(cycles, 0)];
      [entering, firing, cycles / most].forEach((share, column) => {
        const { text, bar } = rows[index].cells[column];
        text.textContent = texts[column];
        bar.style.width = `${100 * Math.min(share, 1)}%`;
      });
    });
  };
  return { element, show };
}

function makeYaml(announce) {
  const code = make("code");
  const text = make("pre", { tabIndex: 0 }, code);
  text.setAttribute("role", "region");
  text.setAttribute("aria-label", "Changed settings");
  const button = make("button", { type: "button" }, "Copy settings");
  button.addEventListener("click", async () => {
    announce((await isCopied(code)) ? "Copied." : "Selected; copy it with the keyboard.");
  });
  const element = make("div", { className: "whatif-yaml" }, text, button);
  return { element, show: (yaml) => void (code.textContent = yaml) };
}

// Where the clipboard may not be written, the text is selected at least
async function isCopied(code) {
  try {
    await navigator.clipboard.writeText(code.textContent);
    return true;
  } catch {
    getSelection().selectAllChildren(code);
    return false;
  }
}

// Tells what is said last, once nothing has been said for a while
function makeStatus() {
  const element = make("p", { className: "whatif-status" });
  element.setAttribute("role", "status");
  element.setAttribute("aria-live", "polite");
  let timer;
  const announce = (text, delay = 0) => {
    clearTimeout(timer);
    timer = setTimeout(() => (element.textContent = text), delay);
  };
  return { element, announce };
}

// Panel ----------------------------------------------------------------------------------------

function mount(element, model) {
  if (model.reason) {
    element.append(make("p", {}, model.reason));
    return;
  }
  panels += 1;
  const settings = new PanelSettings(model);
  const before = predict(model, {});
  const status = makeStatus();
  const figures = makeFigures(model.confidence);
  const layers = makeLayers(model.layers);
  const yaml = makeYaml(status.announce);

  const show = () => {
    const prediction = predict(model, settings.values);
    const texts = figuresOf(prediction, model, settings.values, before);
    controls.show();
    figures.show(texts);
    layers.show(prediction);
    yaml.show(yamlOf(settings.values, model.settings));
    return `${texts.latency} microseconds, ${texts.change}. ${texts.outside}`;
  };
  const onChange = () => status.announce(show(), QUIET_MS);
  const rows = model.controls.map((control, index) =>
    makeRow(control, `whatif-${panels}-${index}`, settings, onChange),
  );
  const reset = make("button", { type: "button" }, "Reset");
  reset.addEventListener("click", () => {
    settings.reset();
    onChange();
  });
  const controls = makeControls(rows, reset);

  const details = make("div", { className: "whatif-details" }, layers.element, yaml.element);
  element.classList.add("whatif");
  element.append(figures.element, controls.element, details, status.element);
  show();
}
