"""Draw simulated recordings beside a genuine one: ``python docs/figures/camera.py``.

Writes ``docs/images/camera.png`` and prints the numbers that ``docs/datasets.md`` quotes. The
genuine recording is the one of N-MNIST among the tests; the simulated ones are of the 5,000 digits
of ``nmnist-saccade``, which are recorded first, some 20 s, unless they are in the cache.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from tonic.io import events_struct, read_mnist_file

from spikemeter.config import load_config
from spikemeter.datasets.splits import cached_recordings

DOCS = Path(__file__).parent.parent
GENUINE = DOCS.parent / "tests" / "datasets" / "data" / "nmnist_sample.bin"
OFF, ON = "#3182bd", "#e6550d"
GREY = "#636363"
BIN_MS = 5
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
EVERY = 10  # intervals of one digit in so many


def main() -> None:
    """Compare, print, draw and save."""
    genuine = read_mnist_file(str(GENUINE), dtype=events_struct)
    recordings, labels = cached_recordings(
        load_config({"dataset": "nmnist-saccade", "network": "10"})
    )
    counts = np.diff(recordings.offsets)
    on = recordings.events["p"].mean()
    intervals = np.concatenate([gaps(recordings[i]) for i in range(0, len(recordings), EVERY)])
    ratios = np.quantile(intervals, QUANTILES) / np.quantile(gaps(genuine), QUANTILES)
    print(
        f"events: genuine {genuine.size:,}, simulated {counts.mean():,.0f} +- {counts.std():,.0f}"
    )
    print(f"ON: genuine {100 * genuine['p'].mean():.1f} %, simulated {100 * on:.1f} %")
    for quantile, ratio in zip(QUANTILES, ratios, strict=True):
        print(f"interval, quantile {quantile:g}: simulated / genuine {ratio:.3f}")

    # The 4 whose number of events is nearest to that of the genuine one, which is a 4
    four = min(np.flatnonzero(labels == 4), key=lambda number: abs(counts[number] - genuine.size))
    figure, axes = plt.subplot_mosaic(
        [["genuine", "genuine time", "counts"], ["simulated", "simulated time", "intervals"]],
        figsize=(11, 5.4),
        width_ratios=(1, 2, 1.6),
        layout="constrained",
    )
    for name, events in (("genuine", genuine), ("simulated", recordings[int(four)])):
        draw_frame(axes[name], events, f"{name}: {events.size:,} events")
        draw_time(axes[f"{name} time"], events, name)
    draw_counts(axes["counts"], counts, genuine.size)
    draw_intervals(axes["intervals"], intervals, gaps(genuine))
    figure.savefig(DOCS / "images" / "camera.png", dpi=120)


def gaps(events: NDArray[Any]) -> NDArray[np.float64]:
    """Milliseconds between events of the same pixel."""
    pixel = events["y"].astype(np.int64) * 34 + events["x"]
    time = events["t"].astype(np.int64)
    order = np.lexsort((time, pixel))
    return np.diff(time[order])[np.diff(pixel[order]) == 0] / 1000


def draw_frame(axes: Axes, events: NDArray[Any], title: str) -> None:
    """Events of the first saccade: OFF where the digit comes, ON where it leaves."""
    first = events[events["t"] < 105_000]
    image = np.zeros((34, 34))
    np.add.at(
        image, (first["y"].astype(int), first["x"].astype(int)), 2 * first["p"].astype(int) - 1
    )
    limit = np.abs(image).max()
    axes.imshow(image, cmap="RdBu_r", vmin=-limit, vmax=limit)
    axes.set_title(title, size=10)
    axes.set_axis_off()


def draw_time(axes: Axes, events: NDArray[Any], name: str) -> None:
    """Events per millisecond of both polarities."""
    edges = np.arange(0, 316, BIN_MS)
    for polarity, colour, label, sign in ((1, ON, "ON", 1), (0, OFF, "OFF", -1)):
        times = events["t"][events["p"] == polarity] / 1000
        rate = sign * np.histogram(times, edges)[0] / BIN_MS
        axes.stairs(rate, edges, fill=True, color=colour, label=label)
    for saccade in (105, 210):
        axes.axvline(saccade, color=GREY, linewidth=0.6, linestyle=":")
    axes.set_ylim(-20, 20)
    axes.set_yticks([-15, 0, 15], ["15", "0", "15"])
    axes.set_ylabel("events per ms")
    axes.set_title(f"{name}, three saccades", size=10)
    if name == "genuine":
        axes.legend(loc="upper right", fontsize=8, frameon=False)
    else:
        axes.set_xlabel("ms")


def draw_counts(axes: Axes, counts: NDArray[np.int64], genuine: int) -> None:
    """How many events a recording has."""
    axes.hist(counts, bins=50, color="#bdbdbd")
    axes.axvline(genuine, color="black")
    axes.annotate("genuine", (genuine, 0.9), xycoords=("data", "axes fraction"), xytext=(5, 0),
                  textcoords="offset points", size=8)  # fmt: skip
    axes.set_title(f"events of {len(counts):,} simulated digits", size=10)
    axes.set_yticks([])


def draw_intervals(
    axes: Axes, simulated: NDArray[np.float64], genuine: NDArray[np.float64]
) -> None:
    """Distribution of the time from one event of a pixel to the next."""
    for values, colour, label in ((simulated, GREY, "simulated"), (genuine, "black", "genuine")):
        shares = np.arange(1, values.size + 1) / values.size
        style = "-" if label == "genuine" else "--"
        axes.plot(np.sort(values), shares, color=colour, label=label, linestyle=style)
    axes.set_xscale("log")
    axes.set_xlim(1.5, 320)
    axes.set_xticks([2, 5, 10, 20, 50, 100, 200], ["2", "5", "10", "20", "50", "100", "200"])
    axes.set_xlabel("ms from one event of a pixel to its next")
    axes.set_title("share of intervals below", size=10)
    axes.legend(fontsize=8, frameon=False)


if __name__ == "__main__":
    main()
