// Predictions in a browser: the chain of predict_latency from hyperparameters to cycles.
//
// A part of the script that `panel_script` of whatif.py puts together. Each function names the
// Python function that it mirrors, and a test holds both to the same numbers, so that a change
// there is a change here. `model` is what `panel_model` wrote; `settings` are values by flat key.

const HEADS = ["firing", "output", "taps", "early", "late", "accuracy", "spread"];
const RATE_FLOOR = 1e-3;
const RATE_ROUNDING = 1e-12;
const LARGEST_LOG = 5;
const OUTSIDE_FACTOR = 2;
const WIDEST = 50;
const HALF_WIDTH_BY_SLOPE = {
  fast_sigmoid: Math.SQRT2 - 1,
  atan: 2 / Math.PI,
  sigmoid: Math.log(3 + 2 * Math.SQRT2),
  triangular: 0.5,
};

// Features -----------------------------------------------------------------------------------

// NeuronConfig.decay
function decayOf({ model, beta, R, C, match }) {
  if (R !== null && C !== null) return 1 - 1 / (R * C);
  const free = model === "lapicque" && (match === "none" || match === "gain");
  return free ? 1 + Math.log(beta) : beta;
}

// NeuronConfig.gain
function gainOf({ model, beta, C, match }) {
  if (C !== null) return 1 / C;
  const free = model === "lapicque" && (match === "none" || match === "decay");
  return free ? -Math.log(beta) : 1;
}

// SurrogateConfig.steepness
function steepnessOf({ name, slope, width }) {
  if (slope !== null) return slope;
  return width === null ? 0 : HALF_WIDTH_BY_SLOPE[name] / width;
}

// SurrogateConfig.half_width
function halfWidthOf(surrogate) {
  if (surrogate.width !== null) return surrogate.width;
  if (surrogate.name === "spike_rate_escape") return Math.LN2;
  if (!(surrogate.name in HALF_WIDTH_BY_SLOPE)) return 0;
  return HALF_WIDTH_BY_SLOPE[surrogate.name] / steepnessOf(surrogate);
}

// features.gradient_at
function gradientAt(surrogate, x) {
  const k = steepnessOf(surrogate);
  switch (surrogate.name) {
    case "fast_sigmoid":
      return 1 / (1 - k * x) ** 2;
    case "atan":
      return k / 2 / (1 + ((Math.PI * k * x) / 2) ** 2);
    case "sigmoid": {
      const fall = Math.exp(k * x);
      return (k * fall) / (1 + fall) ** 2;
    }
    case "triangular":
      return Math.max(0, 1 + k * x);
    case "spike_rate_escape":
      return k * Math.exp((Math.LN2 / halfWidthOf(surrogate)) * (x - 1));
    default:
      return surrogate.name === "straight_through" || x === 0 ? 1 : 0;
  }
}

// features.run_features
function runFeatures(model, settings) {
  const section = (name) =>
    Object.fromEntries(
      Object.entries(settings)
        .filter(([key]) => key.startsWith(`${name}.`))
        .map(([key, value]) => [key.slice(name.length + 1), value]),
    );
  const [neuron, surrogate, training] = ["neuron", "surrogate", "training"].map(section);
  return [
    decayOf(neuron),
    neuron.threshold,
    neuron.threshold / gainOf(neuron),
    steepnessOf(surrogate),
    halfWidthOf(surrogate),
    gradientAt(surrogate, 0),
    gradientAt(surrogate, -neuron.threshold),
    training.lr,
    training.epochs,
    training.batch_size,
    (training.lr * training.epochs) / training.batch_size,
    training.weight_bits,
    Number(training.batch_norm),
    training.dropout,
    training.population,
    settings["input.time_steps"],
    ...model.categories.flatMap(([key, names]) =>
      names.map((name) => Number(settings[key] === name)),
    ),
  ];
}

// features.layer_features: a row of single precision for each layer
function layerFeatures(model, entering, settings) {
  const run = runFeatures(model, settings);
  return model.layers.map((layer) =>
    Float32Array.from([...entering.features, ...layer.sizes, ...run]),
  );
}

// Trees --------------------------------------------------------------------------------------

const decoded = new WeakMap();

function numbers(text, Kind) {
  return new Kind(Uint8Array.from(atob(text), (character) => character.charCodeAt(0)).buffer);
}

// Arrays of the ensembles, as ensemble.Ensemble has them, decoded once
function ensemblesOf(model) {
  if (!decoded.has(model)) {
    const ensembles = HEADS.map((name) => {
      const head = model.heads[name];
      return {
        ...head,
        feature: numbers(head.feature, Uint16Array),
        threshold: numbers(head.threshold, Float32Array),
        leaf: numbers(head.leaf, Float32Array),
      };
    });
    decoded.set(model, ensembles);
  }
  return decoded.get(model);
}

// Ensemble.values, for one row: at or above its threshold a node sends the row right
function valueOf({ trees, depth, bias, feature, threshold, leaf }, row) {
  const nodes = 2 ** depth - 1;
  let total = 0;
  for (let tree = 0; tree < trees; tree += 1) {
    let node = 0;
    for (let level = 0; level < depth; level += 1) {
      const at = tree * nodes + node;
      node = 2 * node + (row[feature[at]] >= threshold[at] ? 2 : 1);
    }
    total += leaf[tree * (nodes + 1) + node - nodes];
  }
  return total + bias;
}

// Sparsity -----------------------------------------------------------------------------------

// sparsity.logistic
const logistic = (odds) => 1 / (1 + Math.exp(-odds));

// sparsity.logit
function logit(rate) {
  const inside = within(rate, RATE_FLOOR, 1 - RATE_FLOOR);
  return Math.log(inside / (1 - inside));
}

// sparsity.rate_of
const rateOf = (odds) => within(logistic(odds), RATE_FLOOR, 1);

// sparsity.factor_of
const factorOf = (log) => Math.exp(within(log, -LARGEST_LOG, LARGEST_LOG));

// SparsityModel.predict, for the row of one layer
function learned(model, row, pool) {
  const values = ensemblesOf(model).map((ensemble) => valueOf(ensemble, row));
  const [firing, lines, taps, early, late, accuracy, spread] = values;
  const output = pool === 1 ? rateOf(firing) : rateOf(lines);
  const least = Math.max(rateOf(firing), output / pool ** 2);
  return {
    firingRate: Math.max(Math.min(least, output), RATE_FLOOR),
    outputRate: output,
    tapRatio: factorOf(taps),
    course: [early, late],
    accuracy: logistic(accuracy),
    spread: factorOf(spread),
  };
}

// sparsity.accuracy_interval
function accuracyInterval(expected, halfWidth) {
  const odds = logit(expected);
  const [low, high] = [logistic(odds - halfWidth), logistic(odds + halfWidth)];
  return [
    logistic(odds),
    low <= RATE_FLOOR + RATE_ROUNDING ? 0 : low,
    high >= 1 - RATE_FLOOR - RATE_ROUNDING ? 1 : high,
  ];
}

// Spikes -------------------------------------------------------------------------------------

// profile._averaging applied to a course: means over other equal parts of the same time
function averaged(course, wanted) {
  const parts = course.length;
  return Array.from({ length: wanted }, (_, target) =>
    sum(
      course.map((value, part) => {
        const low = Math.max(part / parts, target / wanted);
        const high = Math.min((part + 1) / parts, (target + 1) / wanted);
        return value * Math.max(high - low, 0) * wanted;
      }),
    ),
  );
}

// Profile.over_steps, for one course
function overSteps({ mean, components }, coefficients, timeSteps) {
  const course = mean.map((value, part) =>
    Math.max(value + sum(coefficients.map((each, of) => each * components[of][part])), 0),
  );
  const steps = averaged(course, timeSteps);
  // Before its negative parts are cut off a course averages to 1, so the total is not 0
  const total = sum(steps);
  return steps.map((value) => (value * timeSteps) / total);
}

// events.expected_counts, events.expected_taps and predict.expected_spikes: what enters a layer.
// `lines` are the input lines that spike, for steps in which each spikes once or not at all.
function expectedSpikes(model, entering, predicted, timeSteps) {
  return model.layers.map((layer, index) => {
    const before = predicted[index - 1];
    const ratio = index === 0 ? entering.tap_ratio : predicted[index].tapRatio;
    const taps = within(layer.even_taps * ratio, layer.taps[0], layer.taps[1]);
    if (index === 0) return { events: entering.events, taps, lines: entering.lines };
    const course = overSteps(model.profile, before.course, timeSteps);
    const rates = course.map((value) => Math.min(before.outputRate * value, 1));
    const all = Array.from({ length: layer.in_channels }, (_, line) => line);
    return {
      events: rates.map((rate) => rate * layer.in_pixels * layer.in_channels),
      taps,
      lines: rates.map((rate) => (rate === 1 ? all : null)),
    };
  });
}

// Intervals ----------------------------------------------------------------------------------

// Domain.excursions: features and keys by which a configuration leaves the calibrated domain
function excursions({ domain, categories }, settings, rows) {
  const found = new Set(domain.strange);
  for (const [key, names] of categories) if (!names.includes(settings[key])) found.add(key);
  for (const { column, key, ranges } of domain.named) {
    const [low, high] = ranges[settings[key]] ?? [-Infinity, Infinity];
    const value = rows[0][column];
    if (value < low || value > high) found.add(domain.feature_names[column]);
  }
  domain.feature_names.forEach((name, column) => {
    const [low, high] = [domain.low[column] ?? -Infinity, domain.high[column] ?? Infinity];
    if (rows.some((row) => row[column] < low || row[column] > high)) found.add(name);
  });
  return found;
}

// Domain.widening
function widening({ unseen, network_is_new: isNew }, outside) {
  const keys = new Set(isNew ? [...outside, "network"] : outside);
  const isMeasured = (key) => Object.hasOwn(unseen, key);
  const others = [...keys].every(isMeasured) ? 1 : OUTSIDE_FACTOR;
  return [...keys].filter(isMeasured).reduce((factor, key) => factor * unseen[key], others);
}

// predict._from_hyperparameters
function predict(model, changes) {
  const settings = { ...model.settings, ...changes };
  const timeSteps = settings["input.time_steps"];
  const entering = model.inputs[timeSteps];
  const rows = layerFeatures(model, entering, settings);
  const pool = model.domain.feature_names.indexOf("layer.pool");
  const predicted = rows.map((row) => learned(model, row, row[pool]));
  const spikes = expectedSpikes(model, entering, predicted, timeSteps);
  const timing = engineTiming(model, settings, spikes);

  const outside = excursions(model, settings, rows);
  const last = predicted.at(-1);
  const shift = entering.estimated ? model.half_widths.estimated_input : 0;
  if (shift === null) outside.add("input");
  const halfWidth =
    (model.half_widths.cycles * last.spread + (shift ?? 0)) * widening(model.domain, outside);
  const factor = Math.exp(Math.min(halfWidth, WIDEST));
  const inDomain = outside.size === 0;
  const accuracyWidth = model.half_widths.accuracy * (inDomain ? 1 : OUTSIDE_FACTOR);
  const [accuracy, ...intervalAccuracy] = accuracyInterval(last.accuracy, accuracyWidth);
  const events = sum(entering.events) / (timeSteps * model.channels * model.pixels);
  return {
    cycles: timing.cycles,
    microseconds: timing.cycles / settings["hardware.clock_mhz"],
    interval_cycles: [timing.cycles / factor, timing.cycles * factor],
    initiation_interval_cycles: timing.interval,
    accuracy,
    interval_accuracy: intervalAccuracy,
    in_domain: inDomain,
    outside: [...outside],
    layers: model.layers.map(({ name }, index) => ({
      name,
      input_rate: index === 0 ? events : predicted[index - 1].outputRate,
      firing_rate: predicted[index].firingRate,
      cycles: timing.layers[index],
    })),
  };
}
