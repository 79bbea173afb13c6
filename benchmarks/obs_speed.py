"""The block method on a wide layer, as a multiple of the bare linear algebra that it cannot do without.

    python benchmarks/obs_speed.py [--size 4096] [--samples 65536]

Bare: the Gram product of float32 samples (by chunks, in float64 sums, as calibration does it), one
Cholesky factor and one inverse in float64. Ours: the same Gram product, and all of `obs` at half the
weights (which is `sparsegpt` at this width, compared with magnitude's mask). One thread, one run; samples
are made chunk by chunk outside the clock.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import record
from scipy import linalg
from threadpoolctl import threadpool_limits

from passes.methods import Pruner
from passes.moments import CHUNK, Moments, product
from passes.patterns import Unstructured
from passes.reconstruction import quadratic


def main() -> None:
    """Print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--samples", type=int, default=128 * 512)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    threadpool_limits(1)
    size, rng = arguments.size, np.random.default_rng(0)
    gram, gram_seconds = np.zeros((size, size)), 0.0
    for start in range(0, arguments.samples, CHUNK):
        x = rng.standard_normal((min(CHUNK, arguments.samples - start), size), np.float32)
        clock = time.process_time()
        gram += product(x, x)
        gram_seconds += time.process_time() - clock
    clock = time.process_time()
    lower, _ = linalg.lapack.dpotrf(gram + 0.01 * np.trace(gram) / size * np.eye(size), lower=1)
    linalg.lapack.dpotri(lower, lower=1)
    bare = gram_seconds + time.process_time() - clock
    dense = rng.standard_normal((1, size, size))
    mean = np.zeros((1, size))
    sums = Moments(arguments.samples, gram[None], gram @ dense.transpose(0, 2, 1), mean, mean)
    clock = time.process_time()
    problem = quadratic(sums, dense)
    posed = time.process_time() - clock
    clock = time.process_time()
    weights, _, _ = Pruner("obs", dense, problem, sums.gram, Unstructured()).at(dense.size // 2)
    swept = time.process_time() - clock
    ours = gram_seconds + posed + swept
    result = {
        "size": size,
        "samples": arguments.samples,
        "gram_seconds": round(gram_seconds, 2),
        "bare_seconds": round(bare, 2),
        "pose_seconds": round(posed, 2),
        "sparsegpt_seconds": round(swept, 2),
        "ours_over_bare": round(ours / bare, 2),
        "sparsity": float((weights == 0).mean()),
    }
    for name, value in result.items():
        print(f"{name:20} {value}")
    forms = {"size": "{}", "samples": "{:,}", "bare_seconds": "bare, s|{}"}
    forms |= {"sparsegpt_seconds": "sweep, s|{}", "ours_over_bare": "ours / bare|{}"}
    tables = [record.table("CPU seconds, one thread", [result], forms)]
    record.write(__file__, tables, result, arguments.output)


if __name__ == "__main__":
    main()
