# SPDX-License-Identifier: MIT
"""Every op x dtype of a real vgpu-worker against float64 references, with fresh random inputs.

The seed of the run is printed when a test fails; VGPU_SEED=N repeats it.
"""

import os
import secrets
import zlib

import numpy as np
import pytest
from local_proto import P
from worker_rig import SANITIZED, WorkerRig, dtype_number

SEED = int(os.environ.get("VGPU_SEED", secrets.randbits(32)))
FLOATS = ["f4", "f8"]
SMALL = ["u1", "i1", "u4", "i4"]
EPS = {"f4": 2.0**-24, "f8": 2.0**-53}


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    with WorkerRig(tmp_path_factory.mktemp("ops")) as rig:
        rig.new_region(64 << 20)
        yield rig


@pytest.fixture
def rng(request):
    print(f"VGPU_SEED={SEED}")
    return np.random.default_rng([SEED, zlib.crc32(request.node.name.encode())])


def numbers(rng, n, dtype, special=False):
    if dtype in FLOATS:
        x = (rng.standard_normal(n) * 10.0 ** rng.integers(-3, 4, n)).astype(dtype)
        if special:
            at = rng.choice(n, max(n // 10, 1), replace=False)
            x[at] = rng.choice([np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0], len(at))
        return x
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, n, dtype, endpoint=True)


def bits(x):
    return np.ascontiguousarray(x).reshape(-1).view(np.uint8)


# ---- ECHO -----------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 7, 64, 4097, 9 << 20])
def test_echo(rig, rng, n):
    x = rng.integers(0, 256, n, np.uint8)
    y, = rig.run("ECHO", b"", [x], [x])
    assert np.array_equal(x, y)


def test_echo_inline(rig, rng):
    data = rng.integers(0, 256, 203, np.uint8).tobytes()
    at = P.inline_at(2)
    request = P.request("ECHO", [(P.BUF_INLINE, P.IN, at, 203), (P.BUF_INLINE, P.OUT, 16, 203)],
                        inline=data)
    done = rig.wait_done(rig.send_job(request))
    assert done.error == 0 and done.payload == bytes(16) + data


# ---- AXPY -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("n,incx,incy", [(1, 1, 1), (1000, 1, 1), (77, 3, 2), (5, 1, 1000),
                                         ((1 << 20) + 3, 1, 1), ((1 << 20) + 3, 2, 1)])
def test_axpy(rig, rng, dtype, n, incx, incy):
    special = n < 2000
    x = numbers(rng, (n - 1) * incx + 1, dtype, special)
    y = numbers(rng, (n - 1) * incy + 1, dtype, special)
    alpha = float(rng.standard_normal())
    body = P.pack("vgpu_axpy", dtype=dtype_number(x), alpha=alpha, n=n, incx=incx, incy=incy)
    z, = rig.run("AXPY", body, [x, y], [np.empty(n, dtype)])
    xs, ys = x[::incx].astype("f8"), y[::incy].astype("f8")
    with np.errstate(invalid="ignore"):
        expected = alpha * xs + ys
        limit = 2 * EPS[dtype] * (abs(alpha * xs) + abs(ys))
    finite = np.isfinite(expected)
    assert np.all(abs(z[finite] - expected[finite]) <= limit[finite])
    assert np.array_equal(z[~finite].astype("f8"), expected[~finite], equal_nan=True)


# ---- REDUCE ---------------------------------------------------------------------------------


def reduce(rig, x, kind, out, n, stride):
    body = P.pack("vgpu_reduce", dtype=dtype_number(x), kind=kind, n=n, stride=stride)
    return rig.run("REDUCE", body, [x], [np.empty(1, out)])[0][0]


SHAPES = [(1, 1), (2, 5), (31, 1), (32, 1), (33, 1), (1000, 3), (65536, 1), (65537, 2), (300001, 1)]


@pytest.mark.parametrize("dtype", FLOATS + SMALL)
@pytest.mark.parametrize("n,stride", SHAPES)
def test_reduce_sum(rig, rng, dtype, n, stride):
    x = numbers(rng, (n - 1) * stride + 1, dtype)
    v = x[::stride]
    if dtype in FLOATS:
        exact = np.sum(v.astype(np.longdouble))
        got = reduce(rig, x, P.REDUCE_SUM, "f8", n, stride)
        assert abs(got - exact) <= 4096 * 2.0**-53 * np.sum(abs(v.astype("f8")))
    else:
        out = "i8" if dtype.startswith("i") else "u8"
        assert reduce(rig, x, P.REDUCE_SUM, out, n, stride) == v.astype(out).sum()


def test_reduce_sum_wraps_modulo_2_to_the_64(rig):
    x = np.full(3, -(2**31), "i4")
    assert reduce(rig, x, P.REDUCE_SUM, "i8", 3, 1) == -3 * 2**31


@pytest.mark.parametrize("dtype", FLOATS + SMALL)
@pytest.mark.parametrize("n,stride", SHAPES)
def test_reduce_min_max_argmax(rig, rng, dtype, n, stride):
    x = numbers(rng, (n - 1) * stride + 1, dtype)
    if dtype in FLOATS and n > 8:
        x[:: 7 * stride] = np.inf  # ties: the first one counts
        x[5 * stride] = -np.inf
    v = x[::stride]
    assert reduce(rig, x, P.REDUCE_MIN, dtype, n, stride) == v.min()
    assert reduce(rig, x, P.REDUCE_MAX, dtype, n, stride) == v.max()
    assert reduce(rig, x, P.REDUCE_ARGMAX, "u8", n, stride) == v.argmax()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("n", [1, 31, 32, 100, 65537, 200001])
def test_reduce_nan(rig, rng, dtype, n):
    x = numbers(rng, n, dtype)
    at = int(rng.integers(n))
    x[at] = np.nan
    x[rng.integers(at, n, 3)] = np.nan
    assert np.isnan(reduce(rig, x, P.REDUCE_SUM, "f8", n, 1))
    assert np.isnan(reduce(rig, x, P.REDUCE_MIN, dtype, n, 1))
    assert np.isnan(reduce(rig, x, P.REDUCE_MAX, dtype, n, 1))
    assert reduce(rig, x, P.REDUCE_ARGMAX, "u8", n, 1) == at


@pytest.mark.parametrize("dtype", FLOATS)
def test_reduce_infinities_make_nan_in_a_sum_only(rig, dtype):
    x = np.array([1, np.inf, -np.inf, 2], dtype)
    assert np.isnan(reduce(rig, x, P.REDUCE_SUM, "f8", 4, 1))
    assert reduce(rig, x, P.REDUCE_MAX, dtype, 4, 1) == np.inf
    assert reduce(rig, x, P.REDUCE_ARGMAX, "u8", 4, 1) == 1


# ---- GEMM -----------------------------------------------------------------------------------


def stored(rng, rows, cols, stride, dtype, cut):
    """A matrix with padding between rows, as bytes lie in memory; its last row may lack padding."""
    flat = numbers(rng, rows * stride, dtype)
    flat = flat[: rows * stride - (stride - cols)] if cut else flat
    full = np.concatenate([flat, np.zeros(rows * stride - flat.size, dtype)])
    return flat, full.reshape(rows, stride)[:, :cols].astype("f8")


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("ta", [0, 1])
@pytest.mark.parametrize("tb", [0, 1])
@pytest.mark.parametrize("m,n,k,pad,beta", [(1, 1, 1, 0, 0.0), (5, 7, 3, 0, 1.5), (64, 33, 17, 5, 0.0),
                                            (33, 64, 129, 3, -0.5), (1, 200, 31, 1, 2.0)])
def test_gemm(rig, rng, dtype, ta, tb, m, n, k, pad, beta):
    cut = bool(rng.integers(2))
    ar, ac = (k, m) if ta else (m, k)
    br, bc = (n, k) if tb else (k, n)
    a, fa = stored(rng, ar, ac, ac + pad, dtype, cut)
    b, fb = stored(rng, br, bc, bc + pad, dtype, cut)
    c, fc = stored(rng, m, n, n + pad, dtype, cut)
    alpha = float(rng.standard_normal())
    body = P.pack("vgpu_gemm", dtype=dtype_number(a), trans_a=ta, trans_b=tb, m=m, n=n, k=k,
                  lda=ac + pad, ldb=bc + pad, ldc=n + pad if beta else 0, alpha=alpha, beta=beta)
    d, = rig.run("GEMM", body, [a, b, c] if beta else [a, b], [np.empty((m, n), dtype)])
    fa, fb = (fa.T if ta else fa), (fb.T if tb else fb)
    expected = alpha * fa @ fb + (beta * fc if beta else 0)
    limit = abs(alpha) * abs(fa) @ abs(fb) + (abs(beta * fc) if beta else 0)
    assert np.all(abs(d - expected) <= (k + 4) * 2 * EPS[dtype] * limit)


def test_gemm_in_several_bands(rig, rng):
    """Large enough to be cut into bands of rows (see run_gemm.c), with C and a transposed A."""
    m, n, k = 200, 1000, 1000
    if not SANITIZED:
        m = 2500
    a = rng.standard_normal((k, m), "f4")
    b = rng.standard_normal((k, n), "f4")
    c = rng.standard_normal((m, n), "f4")
    body = P.pack("vgpu_gemm", dtype=P.DTYPE["F32"], trans_a=1, m=m, n=n, k=k, lda=m, ldb=n, ldc=n,
                  alpha=1.0, beta=1.0)
    d, = rig.run("GEMM", body, [a, b, c], [np.empty((m, n), "f4")])
    expected = a.T.astype("f8") @ b.astype("f8") + c
    assert np.max(abs(d - expected)) < 2e-3


@pytest.mark.parametrize("dtype", FLOATS)
def test_gemm_nan_and_inf(rig, dtype):
    a = np.array([[np.nan, 1], [2, 3]], dtype)
    b = np.array([[1, 0], [1, np.inf]], dtype)
    body = P.pack("vgpu_gemm", dtype=dtype_number(a), m=2, n=2, k=2, lda=2, ldb=2, alpha=1.0)
    d, = rig.run("GEMM", body, [a, b], [np.empty((2, 2), dtype)])
    assert np.array_equal(d, np.array([[np.nan, np.nan], [5, np.inf]], dtype), equal_nan=True)


# ---- FFT ------------------------------------------------------------------------------------


def fft_body(dtype, kind, direction, shape, batch):
    return P.pack("vgpu_fft", dtype=P.DTYPE["F32" if dtype == "f4" else "F64"], kind=kind,
                  direction=direction, rank=len(shape), n0=shape[0],
                  n1=shape[1] if len(shape) == 2 else 0, batch=batch)


def complex_numbers(rng, shape, dtype):
    x = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    return x.astype("c8" if dtype == "f4" else "c16")


def assert_close(got, expected, dtype, points):
    scale = np.sqrt(np.mean(abs(expected) ** 2)) or 1.0
    assert np.max(abs(got - expected)) <= 16 * EPS[dtype] * max(np.log2(points), 1) * scale * 8


FFT_SHAPES = [((1,), 1), ((2,), 3), ((8,), 1), ((64,), 2000), ((97,), 5), ((1000,), 131), ((4096,), 3),
              ((1009 * 2,), 2), ((131072,), 1), ((1, 1), 1), ((3, 5), 7), ((16, 16), 33), ((17, 1), 2),
              ((1, 18), 2), ((30, 41), 2), ((256, 128), 3)]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("direction", [0, 1])
@pytest.mark.parametrize("shape,batch", FFT_SHAPES)
def test_fft_c2c(rig, rng, dtype, direction, shape, batch):
    x = complex_numbers(rng, (batch, *shape), dtype)
    body = fft_body(dtype, P.FFT_C2C, direction, shape, batch)
    y, = rig.run("FFT", body, [x], [x])
    axes = tuple(range(1, x.ndim))
    expected = (np.fft.ifftn if direction else np.fft.fftn)(x.astype("c16"), axes=axes)
    assert_close(y, expected, dtype, np.prod(shape))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape,batch", FFT_SHAPES)
def test_fft_real(rig, rng, dtype, shape, batch):
    x = rng.standard_normal((batch, *shape)).astype(dtype)
    axes = tuple(range(1, x.ndim))
    expected = np.fft.rfftn(x.astype("f8"), axes=axes)
    half = np.empty(expected.shape, "c8" if dtype == "f4" else "c16")
    y, = rig.run("FFT", fft_body(dtype, P.FFT_R2C, 0, shape, batch), [x], [half])
    assert_close(y, expected, dtype, np.prod(shape))
    z, = rig.run("FFT", fft_body(dtype, P.FFT_C2R, 1, shape, batch), [y], [x])
    assert_close(z, x, dtype, np.prod(shape))


def test_fft_of_nan_is_nan(rig):
    x = np.ones((2, 16), "c8")
    x[0, 3] = np.nan
    y, = rig.run("FFT", fft_body("f4", P.FFT_C2C, 0, (16,), 2), [x], [x])
    assert np.all(np.isnan(y[0])) and not np.any(np.isnan(y[1]))


def test_fft_more_shapes_than_plans_are_kept(rig, rng):
    for n in range(2, 90):
        x = complex_numbers(rng, (2, n), "f8")
        y, = rig.run("FFT", fft_body("f8", P.FFT_C2C, 0, (n,), 2), [x], [x])
        assert_close(y, np.fft.fft(x), "f8", n)


def test_fft_inline_at_odd_places(rig, rng):
    x = complex_numbers(rng, 5, "f8")
    body = fft_body("f8", P.FFT_C2C, 0, (5,), 1)
    at = P.inline_at(2, len(body))
    request = P.request("FFT", [(P.BUF_INLINE, P.IN, at + 8, 80), (P.BUF_INLINE, P.OUT, 24, 80)], body,
                        inline=bytes(8) + x.tobytes())
    done = rig.wait_done(rig.send_job(request))
    assert done.error == 0
    assert_close(np.frombuffer(done.payload[24:], "c16"), np.fft.fft(x), "f8", 5)


# ---- SORT -----------------------------------------------------------------------------------


def order_of(keys, descending):
    """Stable order: NaN above all numbers, -0 like +0."""
    if keys.dtype.kind == "f":
        rank = np.unique(np.where(np.isnan(keys), np.inf, keys + 0.0), return_inverse=True)[1] * 2
        rank = rank + np.isnan(keys)
    else:
        rank = np.unique(keys, return_inverse=True)[1]
    return np.argsort(-rank if descending else rank, kind="stable")


SORT_TYPES = FLOATS + SMALL + ["u8", "i8"]
SORT_SIZES = [1, 2, 3, 255, 1000, 70001]


@pytest.mark.parametrize("dtype", SORT_TYPES)
@pytest.mark.parametrize("descending", [0, 1])
@pytest.mark.parametrize("n", SORT_SIZES)
@pytest.mark.parametrize("special", [False, True])
def test_sort_keys(rig, rng, dtype, descending, n, special):
    keys = numbers(rng, n, dtype, special)
    if not special:
        keys[rng.integers(n, size=n // 2)] = keys[0]  # many equal ones
    body = P.pack("vgpu_sort", dtype=dtype_number(keys), descending=descending, n=n)
    got, = rig.run("SORT", body, [keys], [keys])
    assert np.array_equal(bits(got), bits(keys[order_of(keys, descending)]))


@pytest.mark.parametrize("dtype", SORT_TYPES)
@pytest.mark.parametrize("value_size", [1, 2, 4, 8])
@pytest.mark.parametrize("n,descending", [(1, 0), (1000, 0), (1001, 1), (70001, 0)])
def test_sort_values_are_stable(rig, rng, dtype, value_size, n, descending):
    keys = numbers(rng, n, dtype, True)
    keys[rng.integers(n, size=n // 2)] = keys[0]
    values = rng.integers(0, 256, n * value_size, np.uint8).view(f"V{value_size}")
    body = P.pack("vgpu_sort", dtype=dtype_number(keys), descending=descending, n=n,
                  value_size=value_size)
    raw = values.view(np.uint8)
    k, v = rig.run("SORT", body, [keys, raw], [keys, raw])
    order = order_of(keys, descending)
    assert np.array_equal(bits(k), bits(keys[order]))
    assert np.array_equal(v, values[order].view(np.uint8))


# ---- DENOISE --------------------------------------------------------------------------------


def denoise_reference(image, patch, search, sigma, h, x, y, w, h_out):
    """The definition, in float64, one shift of the window at a time."""
    margin = patch + search
    wide = np.pad(image.astype("f8"), ((margin, margin), (margin, margin), (0, 0)), "edge")
    rows, cols, channels = image.shape
    side = 2 * patch + 1
    weights = np.zeros((rows, cols))
    sums = np.zeros(image.shape)
    center = wide[search : search + rows + 2 * patch, search : search + cols + 2 * patch]
    with np.errstate(invalid="ignore", over="ignore"):
        for dy in range(-search, search + 1):
            for dx in range(-search, search + 1):
                other = wide[search + dy :, search + dx :][: rows + 2 * patch, : cols + 2 * patch]
                squares = ((center - other) ** 2).sum(axis=2)
                d2 = sum(squares[j : j + rows, i : i + cols] for j in range(side) for i in range(side))
                d2 /= side * side * channels
                weight = np.exp(-np.maximum(d2 - 2 * sigma**2, 0) / h**2)
                weights += weight
                sums += weight[..., None] * other[patch : patch + rows, patch : patch + cols]
        return (sums / weights[..., None])[y : y + h_out, x : x + w]


def denoise_body(dtype, channels, patch, search, sigma, h, width, height, stride, rect):
    x, y, w, h_out = rect
    return P.pack("vgpu_denoise", dtype=P.DTYPE[dtype], channels=channels, patch=patch, search=search,
                  sigma=sigma, h=h, width=width, height=height, stride=stride, x=x, y=y, w=w,
                  h_out=h_out)


def picture(rng, height, width, channels):
    yy, xx = np.mgrid[:height, :width]
    clean = 120 + 70 * np.sin(xx / 9.0) * np.cos(yy / 7.0) + 40 * ((xx // 13 + yy // 11) % 2)
    noisy = clean[..., None] + rng.normal(0, 15, (height, width, channels))
    return noisy


DENOISE_CASES = [(3, 2, 10, (0, 0, 61, 47)), (1, 2, 5, (0, 0, 61, 47)), (3, 0, 3, (7, 9, 13, 5)),
                 (1, 8, 4, (60, 46, 1, 1)), (3, 3, 2, (10, 0, 51, 40)), (1, 1, 32, (0, 30, 20, 17)),
                 (3, 5, 1, (0, 0, 61, 1))]


@pytest.mark.parametrize("channels,patch,search,rect", DENOISE_CASES)
def test_denoise_u8(rig, rng, channels, patch, search, rect):
    image = np.clip(picture(rng, 47, 61, channels), 0, 255).astype(np.uint8)
    stride = 61 * channels + 11
    padded = np.zeros((47, stride), np.uint8)
    padded[:, : 61 * channels] = image.reshape(47, -1)
    flat = padded.reshape(-1)[: 47 * stride - int(rng.integers(12))]
    body = denoise_body("U8", channels, patch, search, 12.0, 9.0, 61, 47, stride, rect)
    out, = rig.run("DENOISE", body, [flat], [np.empty((rect[3], rect[2], channels), np.uint8)])
    exact = denoise_reference(image, patch, search, 12.0, 9.0, *rect)
    off = abs(out.astype(int) - np.floor(exact + 0.5).astype(int))
    assert off.max() <= 1 and np.count_nonzero(off) <= max(off.size // 1000, 1)
    # and where they differ the exact value lies on the border between the two
    assert np.all(abs(exact[off > 0] - np.floor(exact[off > 0]) - 0.5) < 0.01)


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e6])
@pytest.mark.parametrize("channels,patch,search,rect", DENOISE_CASES[:4])
def test_denoise_f32(rig, rng, channels, patch, search, rect, scale):
    image = (picture(rng, 47, 61, channels) * scale).astype("f4")
    sigma, h = np.float32(10 * scale), np.float32(8 * scale)
    body = denoise_body("F32", channels, patch, search, sigma, h, 61, 47, 61 * channels * 4, rect)
    out, = rig.run("DENOISE", body, [image], [np.empty((rect[3], rect[2], channels), "f4")])
    exact = denoise_reference(image, patch, search, float(sigma), float(h), *rect)
    assert np.max(abs(out - exact)) <= 2e-5 * np.max(abs(exact))


def test_denoise_tiles_equal_the_whole_picture(rig, rng):
    patch, search = 2, 4
    margin = patch + search
    image = np.clip(picture(rng, 90, 150, 3), 0, 255).astype(np.float32)
    whole_body = denoise_body("F32", 3, patch, search, 12.0, 9.0, 150, 90, 150 * 12, (0, 0, 150, 90))
    whole, = rig.run("DENOISE", whole_body, [image], [image])
    for y0 in range(0, 90, 37):
        for x0 in range(0, 150, 41):
            y1, x1 = min(y0 + 37, 90), min(x0 + 41, 150)
            top, left = max(y0 - margin, 0), max(x0 - margin, 0)
            tile = image[top : min(y1 + margin, 90), left : min(x1 + margin, 150)].copy()
            rect = (x0 - left, y0 - top, x1 - x0, y1 - y0)
            body = denoise_body("F32", 3, patch, search, 12.0, 9.0, tile.shape[1], tile.shape[0],
                                tile.shape[1] * 12, rect)
            out, = rig.run("DENOISE", body, [tile], [np.empty((y1 - y0, x1 - x0, 3), "f4")])
            assert np.array_equal(out, whole[y0:y1, x0:x1]), "a tile differs from the whole"


def test_denoise_nan_stays_near(rig, rng):
    image = picture(rng, 40, 40, 1).astype("f4")
    image[20, 20, 0] = np.nan
    image[3, 35, 0] = np.inf
    body = denoise_body("F32", 1, 1, 2, 5.0, 5.0, 40, 40, 160, (0, 0, 40, 40))
    out, = rig.run("DENOISE", body, [image], [image])
    exact = denoise_reference(image, 1, 2, 5.0, 5.0, 0, 0, 40, 40)
    assert np.array_equal(np.isfinite(out), np.isfinite(exact))
    assert np.isnan(out[20, 20, 0]) and np.isfinite(out[20, 30, 0])
    good = np.isfinite(exact)
    assert np.allclose(out[good], exact[good], rtol=2e-5)


@pytest.mark.parametrize("h", [1e-30, 1e30])
def test_denoise_with_extreme_strength(rig, rng, h):
    image = np.clip(picture(rng, 20, 20, 1), 0, 255).astype(np.uint8)
    body = denoise_body("U8", 1, 1, 2, 0.0, h, 20, 20, 20, (0, 0, 20, 20))
    out, = rig.run("DENOISE", body, [image], [image])
    exact = denoise_reference(image, 1, 2, 0.0, float(np.float32(h)), 0, 0, 20, 20)
    assert np.max(abs(out - exact)) <= 0.51
