"""Elementary functions on `Lanes` of float or double: polynomials without branches.

Within 4 ulp over all floats and a few ulp over all doubles; infinities, NaN and signs as IEEE 754 wants them. Denormal
arguments and results may count as 0. Every polynomial is the minimax one (Remez exchange in 60 digits) of the quantity
and on the interval named beside it, with weights that make the function's relative error level.
"""

import math

from kernels.numba_cpu.jit.values import (
    DOUBLE,
    FLOAT,
    I32,
    Lanes,
    absolute,
    exact_fma,
    floor,
    fma,
    horner,
    libm,
    select,
)

_INF, _NAN = math.inf, math.nan
_LOG2_E, _2_OVER_PI = 1.4426950408889634, 0.6366197723675814
_SQRT_HALF = 0.7071067811865476


class _Single:
    mantissa, bias, tiny = 23, 127, 2.0**-126
    magic = 1.5 * 2.0**23  # magic + x holds the integer nearest to x in its low bits
    one, sqrt_half = 0x3F800000, 0x3F3504F3  # bits of 1 and of the square root of a half
    ln2 = 0.693145751953125, 1.4286068203094173e-06  # the first has 15 bits: whole multiples are exact
    exp_range = -87.33654, 88.72283  # exp is a normal float within
    expm1_range = -20.0, 89.0  # it is -1 below, infinity above

    # (e^r - 1 - r) / r^2, |r| <= ln(2) / 2, to 2^-28 of e^r
    exp = (0.5, 0.16666518, 0.041666206, 0.00836889, 0.0013950492)
    # (log(1 + f) - f + f^2 / 2) / f^3, sqrt(1/2) <= 1 + f <= sqrt(2), to 2^-30
    log = (
        *(0.3333331, -0.24999987, 0.20002227, -0.16669253, 0.14218657, -0.12384331, 0.11872963),
        *(-0.117898986, 0.06915505),
    )
    # (sin r - r) / r^3 and (cos r - 1 + r^2 / 2) / r^4 by r^2, |r| <= pi / 4, to 2^-28
    sin = (-0.16666655, 0.008332176, -0.00019516979)
    cos = (0.041666646, -0.0013887364, 2.4438092e-05)


class _Double:
    mantissa, bias, tiny = 52, 1023, 2.0**-1022
    magic = 1.5 * 2.0**52
    one, sqrt_half = 0x3FF0000000000000, 0x3FE6A09E667F3BCD
    ln2 = 0.6931471803691238, 1.9082149292705877e-10  # the first has 32 bits
    exp_range = -708.3964185322641, 709.782712893384
    expm1_range = -40.0, 710.0

    # as above, to 2^-58
    exp = (
        *(0.5000000000000012, 0.166666666666667, 0.041666666666515424, 0.008333333333307186, 0.0013888888947014629),
        *(0.00019841269917418965, 2.4801489943565084e-05, 2.755721627362819e-06, 2.7631279850275424e-07),
        2.511786842023412e-08,
    )
    # (log(1 + f) - 2 s) / s^3 by s^2, where s = f / (2 + f), to 2^-66
    log = (
        *(0.6666666666666666, 0.4000000000000625, 0.2857142856908571, 0.22222222646818074, 0.18181775664183836),
        *(0.15387090800514572, 0.13250117459411537, 0.13251332905699895),
    )
    # as above, to 2^-58
    sin = (
        *(-0.16666666666666632, 0.00833333333332237, -0.00019841269829771368, 2.755731367871719e-06),
        *(-2.5050755968365866e-08, 1.5896666891669707e-10),
    )
    cos = (
        *(0.0416666666666666, -0.0013888888888874064, 2.480158728944358e-05, -2.7557314340683765e-07),
        *(2.0875721626716327e-09, -1.1359559477653261e-11),
    )


def _of(x: Lanes) -> type:
    return _Single if x.element == FLOAT else _Double


def _with_sign_of(y: Lanes, x: Lanes) -> Lanes:
    """y, which is not negative, with the sign of x."""
    return (y.bits() | (x.bits() & -(1 << (x.width - 1)))).floats()


def _nearest(x: Lanes) -> tuple[Lanes, Lanes]:
    """The integer nearest to x, |x| < 2^21, as a float and as an integer."""
    magic = _of(x).magic
    shifted = x + magic
    return shifted - magic, shifted.bits() - x.constant(magic).bits()


def _scale(x: Lanes, n: Lanes) -> Lanes:
    """2^n where that is a normal float; x lends its type."""
    return ((n + _of(x).bias) << _of(x).mantissa).floats()


# ------------------------------------------------------------------------------------------ exponentials


def _near_zero(x: Lanes, low: Lanes | None = None) -> tuple[Lanes, Lanes]:
    """(p, n) with e^(x + low) = 2^n (1 + p), |p| < 0.42."""
    c = _of(x)
    n, whole = _nearest(x * _LOG2_E)
    r = fma(n, -c.ln2[1], fma(n, -c.ln2[0], x))
    if low is not None:
        r = r + low
    return fma(horner(r, c.exp), r * r, r), whole


def exp(x: Lanes) -> Lanes:
    p, n = _near_zero(x)
    return _exp_result(x, p, n)


def _exp_result(x: Lanes, p: Lanes, n: Lanes) -> Lanes:
    lowest, highest = _of(x).exp_range
    y = ((p + 1).bits() + (n << _of(x).mantissa)).floats()
    y = select(x > highest, _INF, y)
    y = select(x >= lowest, y, 0.0)
    return select(x.isnan(), x, y)


def expm1(x: Lanes) -> Lanes:
    lowest, highest = _of(x).expm1_range
    x = select(x < lowest, lowest, select(x > highest, highest, x))
    p, n = _near_zero(x)
    half = _scale(x, n - 1)  # 2^128 is no float
    return select(n == 0, p, fma(half, p, half - 0.5) * 2)


def tanh(x: Lanes) -> Lanes:
    """tanh |x| = -e / (2 + e), where e = exp(-2 |x|) - 1."""
    e = expm1(absolute(x) * -2)
    return _with_sign_of(absolute(e / (e + 2)), x)


def sigmoid(x: Lanes) -> Lanes:
    return 1 / (exp(-x) + 1)


# ------------------------------------------------------------------------------------------- logarithms


def _mantissa_exponent(x: Lanes) -> tuple[Lanes, Lanes]:
    """(f, e) with x = (1 + f) 2^e for a positive normal x, sqrt(1/2) <= 1 + f < sqrt(2)."""
    c = _of(x)
    shifted = x.bits() - c.sqrt_half
    magic = x.constant(c.magic)
    e = (magic.bits() + (shifted >> c.mantissa)).floats() - magic
    return ((shifted & ((1 << c.mantissa) - 1)) + c.sqrt_half).floats() - 1, e


def _log_normal(x: Lanes) -> Lanes:
    """log of a positive normal float."""
    c = _of(x)
    f, e = _mantissa_exponent(x)
    square = f * f
    if c is _Single:
        y = fma(square, -0.5, fma(e, c.ln2[1], horner(f, c.log) * (square * f)))
    else:
        s, half = f / (f + 2), square * 0.5
        z = s * s
        y = fma(e, c.ln2[1], s * fma(horner(z, c.log), z, half)) - half
    return fma(e, c.ln2[0], f + y)


def log(x: Lanes) -> Lanes:
    y = select(x < _INF, _log_normal(x), x)
    return select(x < _of(x).tiny, select(x < 0, x.constant(_NAN), -_INF), y)


def log1p(x: Lanes) -> Lanes:
    """log(u) + (what rounding took from u = 1 + x) / u."""
    u = x + 1
    lost = x - (u - 1)
    y = log(u) + lost / select(u == 0, 1.0, u)
    return select(x < _INF, y, x)


# ------------------------------------------------------------------------------------ the error function

#: -log(erfc(a)) / a, 0 <= a <= 3.95, to 2^-28 of erf
_ERF_SINGLE = (
    *(1.1283792, 0.6366194, 0.10277783, -0.019153064, -0.0001603951, 0.0016670263, -0.0006328361),
    *(0.000117641015, -9.256232e-06),
)
#: erf(a) / a by a^2, 0 <= a <= 1, to 2^-62
_ERF_SMALL = (
    *(1.1283791670955126, -0.3761263890318375, 0.11283791670954857, -0.026866170645072893, 0.005223977624780838),
    *(-0.0008548326978740622, 0.000120553310368449, -1.4925593505645053e-05, 1.646097279815068e-06),
    *(-1.6350025034086767e-07, 1.4657878650325638e-08, -1.1365661644367267e-09, 5.945254923277616e-11),
)
#: -log(erfc(a)) by a - 1.75, 1 <= a <= 6, to 2^-59 of erf
_ERF_LARGE = (
    *(4.317863525433223, 3.9596109008134155, 0.9099401664967224, 0.020538840381597933, -0.0046249304985672935),
    *(0.0009640986499172388, -0.00017452306701023368, 2.3741456050489075e-05, -8.275090103745809e-07),
    *(-8.908332624262526e-07, 4.019008149872991e-07, -1.1316581100188531e-07, 2.312517897192464e-08),
    *(-2.7868417524037513e-09, -2.8734249207946856e-10, 2.917429486067055e-10, -9.02760520373258e-11),
    *(1.4787430513940108e-11, -1.0390766726996018e-12),
)


def erf(x: Lanes) -> Lanes:
    """erf a = 1 - exp(log(erfc a)) for a = |x|, since log(erfc a) is smooth; of doubles below 1, a polynomial."""
    single = x.element == FLOAT
    last = 3.95 if single else 6.0
    a = absolute(x)
    a = select(a > last, last, a)
    if single:
        y = -expm1(-(horner(a, _ERF_SINGLE) * a))
    else:
        y = select(a < 1, horner(a * a, _ERF_SMALL) * a, 1 - exp(-horner(a - 1.75, _ERF_LARGE)))
    return _with_sign_of(y, x)


#: e^(a^2 / 2) Phi(-a) / v by v = 1 / (a + k), 0 <= a <= end, to a relative 2^-28 and 2^-61; k and end
_TAIL_SINGLE = (
    *(0.398949355, 1.4706111, 5.0383873, 15.4771557, 41.0206642, 143.848404, -495.446167, 4419.34424, -19902.4023),
    *(36469.9922, -24547.9297),
)
_TAIL_DOUBLE = (
    *(0.39894228040946725, 2.3936536794146164, 13.962980331952809, 78.990516285864208, 432.05855593907248),
    *(2276.1455722976456, 11506.839405558652, 55050.02538519103, 258212.33773498509, 944485.93828469238),
    *(5673381.3306264698, 4851120.0523820935, -76704030.260750631, 4456877303.5536977, -73702645404.751904),
    *(849548325449.95323, -7395401693945.1126, 49143952677545.331, -250062493469213.68, 951970953071083.28),
    *(-2597453335629561.8, 4768359410408477.0, -5266767585034428.2, 2647317420446813.4),
)


def gelu(x: Lanes) -> Lanes:
    """x Phi(x) = max(x, 0) - a Phi(-a) for a = |x|, where Phi(-a) = e^(-a^2 / 2) q(a) and q' = a q - 1 / sqrt(2 pi)."""
    c, single = _of(x), x.element == FLOAT
    coefficients, k, end = (_TAIL_SINGLE, 3.6875, 13.3) if single else (_TAIL_DOUBLE, 6.0, 37.7)
    a = absolute(x)
    a = select(a > end, end, a)
    # v is off by rounding: it belongs to a + r s rather than to a.
    s = a + k
    about = s - a
    s_low = (a - (s - about)) + (k - about)
    v = 1 / s
    r = fma(-v, s_low, exact_fma(-v, s, v.constant(1)))
    q = horner(v, coefficients)
    q = fma(q, v, fma(-a, q * v, 0.3989422804014327) * (r * s))
    # a q (1 + p) 2^n, with a q in two pieces, since it would be the third rounding in a row
    square = a * a
    p, n = _near_zero(square * -0.5, exact_fma(a, a, -square) * -0.5)
    high = a * q
    tail = fma(high, p, exact_fma(a, q, -high)) + high
    tail = tail.bits() + (n << c.mantissa)
    tail = select(tail < 1 << c.mantissa, 0, tail).floats()
    y = select(x < 0, -tail, x - tail)
    if single:
        y = select(a < c.tiny * 16, x * 0.5, y)  # where the tail counts as 0
    else:
        y = select(a < 0.75, x * fma(horner(square * 0.5, _ERF_SMALL), x * (0.5 * _SQRT_HALF), 0.5), y)
    return select(x.isnan(), x, y)


# ------------------------------------------------------------------------------------------ sine, cosine


def sin(x: Lanes) -> Lanes:
    return _circular("sin", x)


def cos(x: Lanes) -> Lanes:
    return _circular("cos", x)


def _circular(name: str, x: Lanes) -> Lanes:
    """x = n pi/2 + r with pi/2 in pieces (Cody and Waite 1980): fine up to 1e7 for floats, which are reduced as
    doubles, and 1e6 for doubles; lanes beyond that go to the C library."""
    if x.element == FLOAT:
        limit, wide = 1e7, x.to(DOUBLE)
        n, quadrant = _nearest(wide * _2_OVER_PI)
        r = fma(n, -9.920935796805404e-10, fma(n, -1.570796325802803, wide)).to(FLOAT)
        quadrant = quadrant.to(I32)
    else:
        limit = 1e6
        n, quadrant = _nearest(x * _2_OVER_PI)
        r = fma(n, -6.077100506303966e-11, fma(n, -1.5707963267341256, x))
        r = fma(n, -2.0222662487959506e-21, r)
    if name == "cos":
        quadrant = quadrant + 1
    z = r * r
    sine = fma(horner(z, _of(x).sin) * z, r, r)
    cosine = fma(horner(z, _of(x).cos) * z, z, fma(z, -0.5, 1.0))
    y = select((quadrant & 1) != 0, cosine, sine)
    y = select((quadrant & 2) != 0, -y, y)
    return libm(name, x, absolute(x) > limit, y)


# ------------------------------------------------------------------------------------------------ powers


def power(x: Lanes, y: Lanes) -> Lanes:
    """x ** y with the special cases of IEEE 754's pow."""
    a = absolute(x)
    if x.element == FLOAT:
        r = exp(y.to(DOUBLE) * log(a.to(DOUBLE))).to(FLOAT)
    else:
        r = _exp_of_product(y, a)
    whole = floor(y) == y
    odd = whole & (floor(y * 0.5) * 2 != y)
    r = select(odd, _with_sign_of(r, x), r)
    r = select((x < 0) & (a < _INF) & (absolute(y) < _INF) & (whole == 0), _NAN, r)
    r = select((a == 1) & (absolute(y) == _INF), 1.0, r)
    return select((x == 1) | (y == 0), 1.0, r)


#: (atanh(s) / s - 1 - s^2 / 3) / s^4 by s^2, |s| <= 0.172, to 2^-73 of atanh
_POWER = (
    *(0.1999999999999999, 0.14285714285722553, 0.11111111108768497, 0.09090909435128236, 0.07692278437309866),
    *(0.06668158645143338, 0.05837410471340205, 0.05994497070873989),
)
_THIRD = 0.3333333333333333, 1.850371707708594e-17


def _exp_of_product(y: Lanes, a: Lanes) -> Lanes:
    """exp(y log a) of doubles, a not negative. The exponent is off by a relative 2^-64 at most."""
    high, low = _log_in_two(a)
    high = select(a < _Double.tiny, -_INF, select(a < _INF, high, a))
    v = y * high
    rest = exact_fma(y, high, -v) + y * low
    rest = select(absolute(v) < 1e3, rest, 0.0)
    return _exp_result(v, *_near_zero(v, rest))


def _log_in_two(a: Lanes) -> tuple[Lanes, Lanes]:
    """log of a positive normal double as the sum of two doubles, by log(1 + f) = 2 atanh(f / (2 + f))."""
    f, e = _mantissa_exponent(a)
    d = f + 2
    s = f / d
    s_low = (exact_fma(-s, d, f) - s * (f - (d - 2))) / d
    z = s * s
    z_low = exact_fma(s, s, -z) + s * s_low * 2
    # atanh(s) / s - 1 = z (1/3 + q)
    q = horner(z, _POWER) * z
    c = q + _THIRD[0]
    c_low = (_THIRD[0] - c) + q + _THIRD[1]
    b = z * c
    b_low = exact_fma(z, c, -b) + (z * c_low + z_low * c)
    # atanh(s) = s + s b
    t = s * b
    t_low = exact_fma(s, b, -t) + (s * b_low + s_low * b)
    h = s + t
    h_low = (s - h) + t + (t_low + s_low)
    # e log 2 + 2 atanh(s); the first product is exact and not the smaller one, unless e = 0
    k = e * _Double.ln2[0]
    high = k + h * 2
    low = (k - high) + h * 2 + (h_low * 2 + e * _Double.ln2[1])
    total = high + low
    return total, (high - total) + low
