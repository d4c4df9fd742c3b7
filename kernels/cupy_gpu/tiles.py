"""How a product is cut into blocks, from its shape alone: so its bits do not depend on the GPU that it runs on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache

__all__ = ["HOPPER", "TILES", "Cut", "Tile", "cut", "cut_for_hopper"]


@dataclass(frozen=True)
class Tile:
    """The part of a product that a block makes, m x n, with slices of the operands k deep in `stages` buffers.

    part: what a thread sums of it, or a warp on tensor cores. slices: groups of threads that share each k.
    blocks: so many have registers and shared memory on a multiprocessor, at least.
    rate: products of two numbers that a multiprocessor is expected to make in a cycle.
    """

    m: int
    n: int
    k: int
    threads: int
    blocks: int
    stages: int
    part: tuple[int, int]
    rate: int
    slices: int = 1

    def shared(self, tensor: bool, itemsize: int, a_along_k: bool, b_along_k: bool) -> int:
        """Bytes of shared memory: the slices, padded as Layout in gemm.cu, or the sums of all groups."""
        wide = 16 // itemsize

        def slice_of(extent: int, along_k: bool) -> int:
            if tensor and along_k:
                return extent * (self.k + 4)
            return self.k * (extent + (8 if tensor else wide))

        slices = self.stages * (slice_of(self.m, a_along_k) + slice_of(self.n, b_along_k))
        return itemsize * max(slices, self.slices * self.m * self.n if self.slices > 1 else 0)

    def fits(self, precision: str, room: int) -> bool:
        """Whether a block has room in so many bytes of shared memory, however its operands lie."""
        itemsize, sides = 8 if precision == "float64" else 4, (False, True)
        return all(self.shared(precision in TENSOR, itemsize, a, b) <= room for a in sides for b in sides)


#: Precision -> tiles. Those of float32 and float64 are summed by plain multiplication.
TILES = {
    "float32": (
        Tile(128, 128, 8, 256, 2, 4, (8, 8), rate=110),
        Tile(64, 64, 16, 128, 4, 4, (8, 4), rate=80),
        Tile(32, 32, 32, 256, 2, 3, (4, 4), rate=50, slices=4),
    ),
    "float64": (
        Tile(64, 64, 8, 128, 3, 4, (8, 4), rate=50),
        Tile(32, 32, 16, 256, 2, 3, (4, 4), rate=25, slices=4),
    ),
    "tf32": (
        Tile(256, 128, 32, 256, 1, 3, (64, 64), rate=500),
        Tile(128, 128, 32, 128, 2, 3, (64, 64), rate=384),
        Tile(128, 64, 32, 128, 2, 3, (64, 32), rate=256),
        Tile(64, 64, 32, 128, 3, 3, (32, 32), rate=192),
        Tile(32, 32, 32, 128, 4, 4, (16, 16), rate=90),
    ),
    "bf16": (
        Tile(256, 128, 32, 256, 1, 3, (64, 64), rate=550),
        Tile(128, 128, 32, 128, 2, 3, (64, 64), rate=420),
        Tile(128, 64, 32, 128, 2, 3, (64, 32), rate=280),
        Tile(64, 64, 32, 128, 3, 3, (32, 32), rate=200),
        Tile(32, 32, 32, 128, 4, 4, (16, 16), rate=90),
    ),
}

#: Tiles of hopper.cu: a multiplying warpgroup has half the rows, and with 256 columns of 128 rows the multiprocessor
#: reads and copies fewest bytes for each product. The rates are guesses: nothing was measured.
HOPPER = {
    "bf16": (
        Tile(128, 256, 64, 384, 1, 4, (64, 256), rate=1400),
        Tile(256, 128, 64, 384, 1, 4, (128, 128), rate=1350),
        Tile(128, 128, 64, 384, 1, 6, (64, 128), rate=1000),
        Tile(256, 64, 64, 384, 1, 5, (128, 64), rate=850),
        Tile(128, 64, 64, 384, 1, 8, (64, 64), rate=600),
    ),
    "tf32": (
        Tile(128, 256, 32, 384, 1, 4, (64, 256), rate=750),
        Tile(256, 128, 32, 384, 1, 4, (128, 128), rate=725),
        Tile(128, 128, 32, 384, 1, 6, (64, 128), rate=550),
        Tile(256, 64, 32, 384, 1, 5, (128, 64), rate=450),
        Tile(128, 64, 32, 384, 1, 8, (64, 64), rate=320),
    ),
}

#: Precisions of tensor cores.
TENSOR = ("tf32", "bf16")

#: Multiprocessors of the GPU that cuts are made for; others run the same blocks.
MULTIPROCESSORS = 132
#: Cycles of a kernel before its first product and after its last, of each block, and of a second kernel; and bytes that
#: a multiprocessor moves in a cycle. Not measured, as the rates of the tiles are not.
START, EACH, SECOND, MOVED = 1500, 300, 3000, 16
#: The least part of k that is worth a block, and the most that is summed one by one.
LEAST, MOST = 256, 8192


@dataclass(frozen=True)
class Cut:
    """A tile, and k in `splits` parts of `span`; cycles: that it is expected to take."""

    tile: Tile
    splits: int
    span: int
    cycles: float = field(default=0.0, compare=False)

    def within(self, precision: str, room: int) -> Cut:
        """The same with a smaller tile, if a block has less shared memory than this one needs. The bits stay: every
        element is summed in the order of k."""
        if self.tile.fits(precision, room):
            return self
        tiles = (tile for tile in TILES[precision] if tile.k == self.tile.k and tile.slices == self.tile.slices)
        return replace(self, tile=next(tile for tile in tiles if tile.fits(precision, room)))


def cut(precision: str, m: int, n: int, k: int, batch: int) -> Cut:
    """The cut that is expected to take the fewest cycles, of `batch` products m x n over k."""
    return _cut(False, precision, m, n, k, batch)


def cut_for_hopper(precision: str, m: int, n: int, k: int, batch: int, elements: int) -> Cut:
    """The same for hopper.cu, operands of so many elements being rounded before."""
    best = _cut(True, precision, m, n, k, batch)
    rounding = 2 * SECOND + elements * (6 if precision == "bf16" else 8) / (MULTIPROCESSORS * MOVED)
    return replace(best, cycles=best.cycles + rounding)


@lru_cache(4096)
def _cut(hopper: bool, precision: str, m: int, n: int, k: int, batch: int) -> Cut:
    best, least = None, float("inf")
    for tile in (HOPPER if hopper else TILES)[precision]:
        tiles = -(-m // tile.m) * -(-n // tile.n) * batch
        for splits in (1, 2, 3, 4, *(waves * MULTIPROCESSORS // tiles for waves in range(1, 9))):
            splits = max(1, splits, -(-k // MOST))
            if splits > 1 and k < splits * LEAST:
                continue
            span = max(1, -(-k // (splits * tile.k))) * tile.k
            parts = max(1, -(-k // span))
            waves = -(-tiles * parts // MULTIPROCESSORS)
            cycles = START + waves * (EACH + span * tile.m * tile.n / tile.rate)
            if parts > 1:
                cycles += SECOND + 2 * parts * batch * m * n * 4 / (MULTIPROCESSORS * MOVED)
            if cycles < least:
                best, least = Cut(tile, parts, span, cycles), cycles
    return best
