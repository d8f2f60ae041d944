// Timing of the engine from expected spikes, in a browser: expectation.py and timing.py.
//
// A part of the script that `panel_script` of whatif.py puts together. Each function names the
// Python function that it mirrors, and a test holds both to the same numbers.

const DISPATCH_CYCLES = 1;
const SCAN_CYCLES = 3;
const LATE_CYCLES = 5;
const DRAIN_CYCLES = { lif: 6, lapicque: 7 };
const READ_CYCLES = 1;

const sum = (values) => values.reduce((total, value) => total + value, 0);
const within = (value, low, high) => Math.min(Math.max(value, low), high);

// Expected waits -----------------------------------------------------------------------------

// scipy.special.erfcx for x >= 0: exp(x^2) erfc(x) by the series of exp(x^2) erf(x), whose terms
// are all positive, and from 1.5 on by Laplace's continued fraction
function erfcx(x) {
  if (x < 1.5) {
    let [term, series] = [x, 0];
    for (let n = 1; term > series * 1e-17; n += 1) {
      series += term;
      term *= (2 * x * x) / (2 * n + 1);
    }
    return Math.exp(x * x) - (2 / Math.sqrt(Math.PI)) * series;
  }
  let fraction = x;
  for (let n = 100; n > 0; n -= 1) fraction = x + n / 2 / fraction;
  return 1 / (Math.sqrt(Math.PI) * fraction);
}

// expectation._lundberg
function lundberg(load) {
  const above = load - 1;
  const start = Math.min(load, above + above / (above * (2 / 3) + 1));
  const decayed = load * Math.exp(-start);
  return (load - decayed - start * decayed) / (1 - decayed);
}

// expectation._bridge: variance of the Brownian bridge
function bridgeVariance(busy, service, drift, { words, spread }) {
  const critical = 1.0001;
  const load = Math.max(busy / words, critical);
  return service * spread * (load > critical ? (2 * drift) / lundberg(load) : busy);
}

// expectation._mean_maximum
function meanMaximum(bridge, drift) {
  const deviation = Math.sqrt(Math.max(bridge, 1e-9));
  return Math.sqrt(Math.PI / 8) * deviation * erfcx((Math.SQRT1_2 * drift) / deviation);
}

// expectation.mean_waits, for one step
function meanWait(sizes, events, accumulate) {
  const share = Math.min(events, 1);
  const some = Math.max(events, 1);
  const busy = accumulate / Math.max(share, 1e-9);
  const service = busy / some;
  const afterScan = busy - sizes.words;
  const drift = Math.abs(afterScan);
  const maximum = meanMaximum(bridgeVariance(busy, service, drift, sizes), drift);
  const overshoot = 1 / Math.expm1(1 / Math.max(maximum, 0.01));
  const shareInside = 1 - (LATE_CYCLES - 1) / 2 / sizes.words;
  const inside = within(shareInside - service / sizes.words, 0, 1);
  const late = LATE_CYCLES * (1 - inside ** some);
  const least = Math.max(afterScan, 0);
  return share * Math.max(least + overshoot + late, afterScan + LATE_CYCLES);
}

// timing._known_places, for one step: the exact wait where it is known which lines spike
function knownWait({ words, phases }, encoderWidth, lines) {
  const spikes = new Array(words).fill(0);
  for (const line of lines) spikes[Math.floor(line / encoderWidth)] += 1;
  let [service, wait] = [0, 0];
  for (let word = words - 1; word >= 0; word -= 1) {
    service += phases * spikes[word];
    if (service > 0) wait = Math.max(wait, word + LATE_CYCLES - words + service);
  }
  return wait;
}

// Steps and schedules ------------------------------------------------------------------------

// timing.tiled_fire_cycles, for one layer
function tiledFireCycles({ height, width, pool }, phases) {
  const [rows, columns] = [Math.ceil(height / 3), Math.ceil(width / 3)];
  const [pooledRows, pooledColumns] = [Math.floor(height / pool), Math.floor(width / pool)];
  const rate = pool ** 2 * phases;
  const pixels = rate >= 9 ? 1 : rate >= 3 ? 3 : 9;
  const before = Math.ceil(rows / pool) - 1;
  const last = Math.ceil(((pooledRows - 3 * before) * pooledColumns) / pixels);
  const late = Math.ceil((3 * pooledColumns) / pixels) - (rows - before * pool) * columns * phases;
  const wait = before > 0 ? Math.max(late, 0) : 0;
  return phases * rows * columns + READ_CYCLES + wait + last;
}

// timing.engine_sizes, for one layer
function engineSizes(layer, cores, encoderWidth, neuron, tapsPerCycle) {
  const phases = Math.ceil(layer.channels / cores);
  const words = Math.ceil(layer.inputs / encoderWidth);
  const banked = layer.bankable && tapsPerCycle === 9;
  const fire = banked ? tiledFireCycles(layer, phases) : layer.height * layer.width * phases;
  return {
    phases,
    words,
    spread: banked ? 1 : layer.spread,
    serviceOf: (events, taps) => events * (banked ? 1 : taps) * phases,
    fire: fire + DRAIN_CYCLES[neuron],
    scan: words + (SCAN_CYCLES - DISPATCH_CYCLES),
  };
}

// EngineTiming.expected, for one layer: cycles of each step
function stepCycles(layer, sizes, encoderWidth, { events, taps, lines }) {
  return events.map((count, step) => {
    const accumulate = sizes.serviceOf(count, taps);
    const known = layer.lines_are_channels && lines[step] !== null;
    const wait = known
      ? knownWait(sizes, encoderWidth, lines[step])
      : meanWait(sizes, count, accumulate);
    return DISPATCH_CYCLES + sizes.fire + sizes.scan + wait;
  });
}

// timing._pipelined_finish: a step starts when its input is there and the step before is done
function pipelinedFinish(total) {
  let ready = total[0].map(() => 0);
  return total.map((ofLayer) => {
    let clock = 0;
    ready = ofLayer.map((cycles, step) => (clock = Math.max(clock, ready[step]) + cycles));
    return ready;
  });
}

// EngineTiming._timing and EngineTiming._slowest_stage
function engineTiming(model, settings, spikes) {
  const width = settings["hardware.encoder_width"];
  const [cores, neuron] = [settings["hardware.neural_cores"], settings["neuron.model"]];
  const sizes = model.layers.map((layer, index) =>
    engineSizes(layer, cores[index], width, neuron, model.taps_per_cycle),
  );
  const total = model.layers.map((layer, index) =>
    stepCycles(layer, sizes[index], width, spikes[index]),
  );
  const spent = total.map(sum);
  const load = settings["input.time_steps"] * sizes[0].words;
  const interval = Math.max(load, ...spent);
  if (settings["hardware.schedule"] !== "step_pipelined") {
    return { cycles: sum(spent), layers: spent, interval };
  }
  const finish = pipelinedFinish(total);
  const layers = finish.map((ends, index) => ends.at(-1) - (ends[0] - total[index][0]));
  return { cycles: finish.at(-1).at(-1), layers, interval };
}
