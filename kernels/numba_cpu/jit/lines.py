"""Winograd's minimal filtering in one dimension, F(m, 3): Lavin & Gray 2016, arXiv 1509.09308.

Polynomials of degree 2 (the kernel) and m - 1 are multiplied by their values at m + 1 points and infinity; the
convolution is the transpose of that (section 4):

    y = A^T [(G w) * (B^T d)]        d: m + 2 inputs, w: 3 weights, y: m outputs

With n(t) the product of t - p over the points, row p of B^T holds the coefficients of n(t) / (t - p), the last one
those of n(t); row p of G is (1, p, p^2) / n'(p), row p of A is (1, p, ..., p^(m-1)); the last ones take the highest
coefficient. In two dimensions each transform is applied to columns and then to rows.

A line is a list of numbers, arrays or vectors in registers: anything with +, - and multiplication by a float.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Lines:
    """The transforms of one F(m, 3), each from a list to a list."""

    input: Callable[[list], list]
    """B^T d"""
    filter: Callable[[list], list]
    """G w"""
    output: Callable[[list], list]
    """A^T y"""
    gradient: Callable[[list], list]
    """A g, the transpose of `output`"""
    weight: Callable[[list], list]
    """G^T u, the transpose of `filter`"""


def two() -> Lines:
    """F(2, 3): points 0, 1, -1. The signs of row 0 of B^T and of G are changed, which cancels."""

    def input(d):
        return [d[0] - d[2], d[2] + d[1], d[2] - d[1], d[3] - d[1]]

    def filter(w):
        even, odd = 0.5 * (w[0] + w[2]), 0.5 * w[1]
        return [w[0], even + odd, even - odd, w[2]]

    def output(y):
        return [y[0] + (y[1] + y[2]), (y[1] - y[2]) + y[3]]

    def gradient(g):
        return [g[0], g[0] + g[1], g[0] - g[1], g[1]]

    def weight(u):
        even, odd = 0.5 * (u[1] + u[2]), 0.5 * (u[1] - u[2])
        return [u[0] + even, odd, even + u[3]]

    return Lines(input, filter, output, gradient, weight)


def four(a: float = 0.625, b: float = 1.5) -> Lines:
    """F(4, 3): points 0, a, -a, b, -b.

    All coefficients but those of G are exact for a = 5/8, b = 3/2. On random normals the largest error is a fifth of
    that with the usual 1 and 2, a half of that with 1/2 and 2, and level with sqrt(1/2) and sqrt(2), the best found.
    """
    aa, bb = a * a, b * b
    at_0, at_a, at_b = 1 / (aa * bb), 1 / (2 * aa * (aa - bb)), 1 / (2 * bb * (bb - aa))  # 1 / n'

    def input(d):
        even_a, odd_a = d[4] - bb * d[2], d[3] - bb * d[1]
        even_b, odd_b = d[4] - aa * d[2], d[3] - aa * d[1]
        return [
            (aa * bb * d[0] + d[4]) - (aa + bb) * d[2],
            even_a + a * odd_a,
            even_a - a * odd_a,
            even_b + b * odd_b,
            even_b - b * odd_b,
            (aa * bb * d[1] + d[5]) - (aa + bb) * d[3],
        ]

    def filter(w):
        even_a, odd_a = at_a * w[0] + aa * at_a * w[2], a * at_a * w[1]
        even_b, odd_b = at_b * w[0] + bb * at_b * w[2], b * at_b * w[1]
        return [at_0 * w[0], even_a + odd_a, even_a - odd_a, even_b + odd_b, even_b - odd_b, w[2]]

    def output(y):
        even_a, odd_a, even_b, odd_b = y[1] + y[2], y[1] - y[2], y[3] + y[4], y[3] - y[4]
        return [
            y[0] + (even_a + even_b),
            a * odd_a + b * odd_b,
            aa * even_a + bb * even_b,
            (aa * a * odd_a + y[5]) + bb * b * odd_b,
        ]

    def gradient(g):
        even_a, odd_a = g[0] + aa * g[2], a * g[1] + aa * a * g[3]
        even_b, odd_b = g[0] + bb * g[2], b * g[1] + bb * b * g[3]
        return [g[0], even_a + odd_a, even_a - odd_a, even_b + odd_b, even_b - odd_b, g[3]]

    def weight(u):
        even_a, odd_a, even_b, odd_b = u[1] + u[2], u[1] - u[2], u[3] + u[4], u[3] - u[4]
        return [
            (at_0 * u[0] + at_a * even_a) + at_b * even_b,
            a * at_a * odd_a + b * at_b * odd_b,
            (aa * at_a * even_a + u[5]) + bb * at_b * even_b,
        ]

    return Lines(input, filter, output, gradient, weight)


LINES = {2: two(), 4: four()}


def square(line: Callable[[list], list], grid: list[list]) -> list[list]:
    """The transform of the columns of a square, and then of its rows."""
    columns = [line([row[j] for row in grid]) for j in range(len(grid))]
    return [line([column[i] for column in columns]) for i in range(len(columns[0]))]
