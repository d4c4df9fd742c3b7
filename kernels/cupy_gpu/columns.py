"""How kernels that combine rows are laid out: blocks of columns by rows, and chunks of rows: fixed by the shape."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

__all__ = ["BLOCKS", "THREADS", "Columns", "columns", "power_of_two"]

THREADS = 256
#: As many blocks as are wanted where there is work for them.
BLOCKS = 512
#: Rows of each thread before another chunk begins, and those that it loads side by side (cuda/columns.cuh).
ROWS, EACH = 32, 8


class Columns(NamedTuple):
    """Blocks of (columns, rows) threads; each block walks the rows of a chunk."""

    grid: tuple[int, int]
    block: tuple[int, int]
    chunk: int

    @property
    def chunks(self) -> int:
        return self.grid[1]


def power_of_two(n: int) -> int:
    """The least power of two that is not below n."""
    return 1 << max(0, n - 1).bit_length()


@lru_cache(maxsize=4096)
def columns(rows: int, width: int, most: int = 32) -> Columns:
    """The layout for a matrix of this shape, with at least one chunk; `most` columns to a block of many rows."""
    across = min(most, power_of_two(width))
    down = min(THREADS // across, power_of_two(-(-rows // 4)))
    across = min(max(most, THREADS // down), power_of_two(width))
    blocks = -(-width // across)
    chunk, chunks = split(rows, down, blocks)
    return Columns((blocks, chunks), (across, down), chunk)


def split(count: int, lanes: int, blocks: int) -> tuple[int, int]:
    """(size of a chunk, chunks) of `count` elements that `lanes` threads combine, where there are `blocks` others."""
    wanted = max(1, min(-(-count // (lanes * ROWS)), BLOCKS // max(1, blocks)))
    chunk = max(1, -(-count // (wanted * lanes * EACH)) * lanes * EACH)
    return chunk, max(1, -(-count // chunk))
