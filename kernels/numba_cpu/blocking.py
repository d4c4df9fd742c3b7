"""How matrix products are cut into blocks that fit registers and caches, and the argument block of their kernel.

0 a  1 b  2 c  3 bias  4 scratch  5 bytes of scratch per part  6 m  7 n  8 k
9 stride of a for i  10 of a for k  11 of b for k  12 of b for j  13 of c for i  (all in bytes)
14 flags  15 pack a  16 pack b  17 row blocks  18 column blocks  19 batch axes
20 address of the micro-kernel  21 vectors of a panel  22 rows of a tile  23 rows of a block  24 steps of k of a block
25 ... for each batch axis: length, stride of a, of b, of c
"""

from kernels.numba_cpu.host import Host

#: Words of the argument block before the batch axes.
ARGUMENTS = 25
#: Bits of flags: add to what C holds; add the bias; apply the activation.
ACCUMULATE, BIAS, FINISH = 1, 2, 4
#: k goes in blocks of at most KC: a panel of B, KC x 3 vectors, comes from the second cache once per tile.
KC = 512
#: Bytes of A that are worked through per panel: they stay in the second cache.
BLOCK = 192 << 10
#: Panels of B that are packed together: a row of them is a few cache lines, and one page of memory.
STRIP = 4
#: Columns of packed B, which lies in the last cache.
NC = 2048
#: Vectors of a panel for many rows; 0: what suits the registers.
PANEL = 0

_USUAL = NC, PANEL


def most_rows(machine: Host) -> dict[int, int]:
    """vectors -> most rows of a tile: 16 registers hold 6 x 2 accumulators, 2 vectors of B and one element of A."""
    if machine.vector_registers <= 16:
        return {1: 6, 2: 6, 3: 4, 4: 3, 5: 2, 6: 2}
    return {1: 12, 2: 12, 3: 8, 4: 6, 5: 4, 6: 4}


def usual_panel(machine: Host) -> int:
    """Vectors of a panel for many rows: 8 x 3 load less than 12 x 2, and eight rows of C a power of two apart leave
    room in every set of the first cache."""
    return PANEL or (2 if machine.vector_registers <= 16 else 3)


def variant() -> str:
    """What the name of compiled code tells of the constants that it holds; "" for the usual ones (see knobs.py)."""
    return "" if (NC, PANEL) == _USUAL else f":nc={NC},panel={PANEL}"


def widest_panel(machine: Host, rows: int, vectors: int) -> int:
    """Vectors of a panel of B for so many rows of A and vectors of B: more for few rows, which leave registers free."""
    most = most_rows(machine)
    for wide in (6, 4, 3):
        if rows <= most[wide]:
            return wide
    if vectors <= 2:
        return 2
    usual = usual_panel(machine)
    return 4 if usual == 3 and vectors == 4 else usual


def most_pixels(machine: Host, taps: int) -> int:
    """Most rows of a tile of one vector in which an element of A serves `taps` rows: the registers hold them, as many
    vectors of B and all elements of A, since LLVM loads these first."""
    return min(12, (machine.vector_registers + 1) // 2 - taps)


def most_dots(machine: Host) -> dict[int, int]:
    """output channels -> most rows of a tile that adds products up along its vectors (jit/dots.py)."""
    return {1: 12, 2: 6, 3: 4, 4: 3} if machine.vector_registers <= 16 else {1: 16, 2: 12, 3: 8, 4: 6}
