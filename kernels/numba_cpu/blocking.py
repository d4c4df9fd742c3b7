"""How matrix products are cut into blocks that fit registers and caches, and the argument block of their kernel.

    0 a  1 b  2 c  3 bias  4 scratch  5 bytes of scratch per part  6 m  7 n  8 k
    9 stride of a for i  10 of a for k  11 of b for k  12 of b for j  13 of c for i  (all in bytes)
    14 flags  15 pack a  16 pack b  17 row blocks  18 column blocks  19 batch axes
    20 address of the micro-kernel  21 ... for each batch axis: length, stride of a, of b, of c
"""

from kernels.numba_cpu.host import Host

#: Words of the argument block before the batch axes.
ARGUMENTS = 21
#: Bits of flags: add to what C holds; add the bias; apply the activation.
ACCUMULATE, BIAS, FINISH = 1, 2, 4
#: k goes in blocks of at most KC: a panel of B, KC x 2 vectors of 32 bytes, fills half of a 32 KiB cache.
KC = 256
#: Columns of packed B, which lies in the last cache.
NC = 2048


def most_rows(machine: Host) -> dict[int, int]:
    """vectors -> most rows of a tile: 16 registers hold 6 x 2 accumulators, 2 vectors of B and one element of A."""
    if machine.vector_registers <= 16:
        return {1: 6, 2: 6, 3: 4, 4: 3, 5: 2, 6: 2}
    return {1: 12, 2: 12, 3: 8, 4: 6, 5: 4, 6: 4}


def rows_of_block(rows: int) -> int:
    """Rows of A that are worked through per panel, so that KC of their columns stay in the second cache."""
    return 24 * rows if rows <= 6 else 12 * rows
