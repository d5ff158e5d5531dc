#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Make a photograph worth denoising: add Gaussian noise, the same for the same seed.

usage: noisy.py IN.ppm OUT.ppm SEED

Measures the noise that the picture has (Immerkaer 1996: the mean absolute response to a mask that
cancels edges). Below SIGMA_WORTH noise with standard deviation SIGMA_ADDED is added to every sample;
otherwise the picture is copied as it is. Prints the standard deviation, in grey levels, that a
denoiser should assume.
"""
import sys

import numpy as np

SIGMA_WORTH = 8.0
SIGMA_ADDED = 20.0


def read_ppm(path):
    """An 8-bit P6 file as an array of height x width x 3."""
    with open(path, "rb") as f:
        if f.readline().strip() != b"P6":
            sys.exit(f"{path} is not a P6 file")
        width, height = map(int, f.readline().split())
        if f.readline().strip() != b"255":
            sys.exit(f"{path} does not have 8-bit samples")
        return np.frombuffer(f.read(width * height * 3), np.uint8).reshape(height, width, 3)


def write_ppm(path, picture):
    with open(path, "wb") as f:
        f.write(b"P6\n%d %d\n255\n" % (picture.shape[1], picture.shape[0]))
        f.write(picture.tobytes())


def estimate_sigma(picture):
    """Standard deviation of the noise, grey levels, of the least noisy channel."""
    p = picture.astype(np.float32)
    rows = p[:-2] - 2 * p[1:-1] + p[2:]
    mask = rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:]
    return float((np.sqrt(np.pi / 2) / 6 * np.abs(mask).mean(axis=(0, 1))).min())


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    picture = read_ppm(sys.argv[1])
    sigma = estimate_sigma(picture)
    if sigma < SIGMA_WORTH:
        noise = np.random.default_rng(int(sys.argv[3])).normal(0, SIGMA_ADDED, picture.shape)
        picture = np.clip(np.rint(picture + noise), 0, 255).astype(np.uint8)
        sigma = SIGMA_ADDED
    write_ppm(sys.argv[2], picture)
    print(f"{sigma:.1f}")


if __name__ == "__main__":
    main()
