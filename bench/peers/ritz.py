"""Smallest eigenvectors of symmetric 2 x 2 and 3 x 3 matrices in closed form; `xp` is torch or jax.numpy.

Entries are arrays of any one shape. A library's eigensolver would launch or wait once per matrix on a GPU.
"""
import math


def smallest_of_two(a, b, c, xp):
    """(x, y) of unit length for [[a, b], [b, c]]."""
    angle = xp.arctan2(2 * b, a - c) / 2
    return -xp.sin(angle), xp.cos(angle)


def null_vector(a, b, c, d, e, f, xp):
    """Unit null vector of the singular [[a, b, c], [b, d, e], [c, e, f]]: the longest column of its adjugate."""
    p, q, r = d * f - e * e, a * f - c * c, a * d - b * b
    pq, pr, qr = c * e - b * f, b * e - c * d, b * c - a * e
    first, second = (p >= q) & (p >= r), q >= r
    columns = zip((p, pq, pr), (pq, q, qr), (pr, qr, r))
    x, y, z = (xp.where(first, u, xp.where(second, v, w)) for u, v, w in columns)
    norm = xp.sqrt(x * x + y * y + z * z)
    return x / norm, y / norm, z / norm


def smallest_of_three(a, b, c, d, e, f, xp):
    """(x, y, z) of unit length for [[a, b, c], [b, d, e], [c, e, f]]: the trigonometric eigenvalue, its null vector,
    and once more with that vector's Rayleigh quotient, which squares the error of the first."""
    mean = (a + d + f) / 3
    spread = xp.sqrt(((a - mean) ** 2 + (d - mean) ** 2 + (f - mean) ** 2 + 2 * (b * b + c * c + e * e)) / 6)
    p, q, r = a - mean, d - mean, f - mean
    determinant = p * (q * r - e * e) - b * (b * r - e * c) + c * (b * e - q * c)
    angle = xp.arccos(xp.clip(determinant / (2 * spread**3), -1, 1)) / 3
    value = mean + 2 * spread * xp.cos(angle + 2 * math.pi / 3)
    x, y, z = null_vector(a - value, b, c, d - value, e, f - value, xp)
    value = a * x * x + d * y * y + f * z * z + 2 * (b * x * y + c * x * z + e * y * z)
    return null_vector(a - value, b, c, d - value, e, f - value, xp)
