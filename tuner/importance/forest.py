"""A random forest of regression trees over cells, grown level by level, all trees at once.

Points are cells, not coordinates: with the range of each parameter cut into few cells, every leaf is a box that is
known exactly, cell by cell, and integrals over the forest are sums (see `fanova`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Forest", "grow"]

ROWS = 2000  # of one tree at most; from more trials each tree draws so many
FEATURES = 0.85  # share of the parameters that a node may split on
LEAST_GAIN = 1e-9  # of the root's squared error


@dataclass(frozen=True)
class Forest:
    """Nodes in levels; node 0 to trees - 1 are the roots.

    feature (nodes,): what a node splits on, -1 for a leaf. left (nodes, cells): the cells of that feature that go left.
    child (nodes,): the left child, the right one follows it. value (nodes,): the mean of the node's rows.
    leaf_tree, leaf_value (leaves,), leaf_cells (leaves, d, cells): the boxes: which cells of each parameter.
    """

    trees: int
    feature: np.ndarray
    left: np.ndarray
    child: np.ndarray
    value: np.ndarray
    leaf_tree: np.ndarray
    leaf_value: np.ndarray
    leaf_cells: np.ndarray

    def predict(self, cells: np.ndarray) -> np.ndarray:
        """What each tree says about points: cells (trees, n, d) or (n, d) -> (trees, n)."""
        if cells.ndim == 2:
            cells = np.broadcast_to(cells, (self.trees, *cells.shape))
        tree, row = np.indices(cells.shape[:2], sparse=False).reshape(2, -1)
        node = tree.copy()
        walking = np.arange(len(node))
        while len(walking):
            here = node[walking]
            inner = self.feature[here] >= 0
            walking, here = walking[inner], here[inner]
            cell = cells[tree[walking], row[walking], self.feature[here]]
            node[walking] = self.child[here] + ~self.left[here, cell]
        return self.value[node].reshape(cells.shape[:2])


def grow(
    cells: np.ndarray,
    y: np.ndarray,
    sizes: np.ndarray,
    categorical: np.ndarray,
    *,
    trees: int = 64,
    max_depth: int = 64,
    min_leaf: int = 2,
    features: float = FEATURES,
    rng: np.random.Generator,
) -> Forest:
    """Grow trees to rows that are given for each tree.

    cells (trees, n, d) int, y (trees, n): the rows. sizes (d,): how many cells a parameter has. categorical (d,):
    whether its cells have no order; then those seen are put in the order of their means, which gives the best of all
    splits into two (Fisher 1958), and those not seen go either way by chance.
    """
    d, most = len(sizes), int(max(sizes))
    count = cells.shape[0] * cells.shape[1]
    x, y = cells.reshape(count, d), y.reshape(count)
    node = np.repeat(np.arange(trees), cells.shape[1])  # within the level
    scale = float(y.std()) or 1.0
    centre = float(y.mean())
    y = (y - centre) / scale
    threshold = LEAST_GAIN * cells.shape[1]
    n_features = max(1, round(features * d))
    boxes = np.arange(most)[None, None, :] < np.asarray(sizes)[None, :, None]
    boxes = np.repeat(boxes, trees, axis=0)
    tree = np.arange(trees)
    levels: list[tuple[np.ndarray, ...]] = []
    leaves: list[tuple[np.ndarray, ...]] = []
    after = trees  # the first node of the next level
    for depth in range(max_depth + 1):
        nodes = len(tree)
        n = np.bincount(node, minlength=nodes)
        total = np.bincount(node, y, nodes)
        feature, left = np.full(nodes, -1), np.zeros((nodes, most), bool)
        if depth < max_depth:
            feature, left = _splits(x, y, node, n, total, most, categorical, min_leaf, n_features, threshold, rng)
        splits = feature >= 0
        child = np.full(nodes, -1)
        child[splits] = after + 2 * np.arange(splits.sum())
        mean = total / n
        levels.append((feature, left, child, mean))
        leaves.append((tree[~splits], mean[~splits], boxes[~splits]))
        if not splits.any():
            break
        after += 2 * int(splits.sum())
        # The rows of nodes that split move on to the next level.
        place = np.cumsum(splits) - 1
        moving = splits[node]
        x, y, node = x[moving], y[moving], node[moving]
        goes_left = left[node, x[np.arange(len(x)), feature[node]]]
        node = 2 * place[node] + ~goes_left
        tree = np.repeat(tree[splits], 2)
        boxes = np.repeat(boxes[splits], 2, axis=0)
        chosen, sides = np.repeat(feature[splits], 2), np.repeat(left[splits], 2, axis=0)
        sides[1::2] ^= True
        boxes[np.arange(len(boxes)), chosen] &= sides
    feature, left, child, value = (np.concatenate(part) for part in zip(*levels, strict=True))
    leaf_tree, leaf_value, leaf_cells = (np.concatenate(part) for part in zip(*leaves, strict=True))
    return Forest(
        trees, feature, left, child, value * scale + centre, leaf_tree, leaf_value * scale + centre, leaf_cells
    )


def _splits(
    x: np.ndarray,
    y: np.ndarray,
    node: np.ndarray,
    n: np.ndarray,
    total: np.ndarray,
    most: int,
    categorical: np.ndarray,
    min_leaf: int,
    n_features: int,
    threshold: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """The best split of each node of a level: (feature (nodes,), -1 for none, left (nodes, most))."""
    nodes, d = len(n), x.shape[1]
    # One group for each (node, feature, cell) that occurs, in that order: how many rows, and their sum.
    key, size, sums = _groups((node[:, None] * d + np.arange(d)) * most + x, y, nodes * d * most)
    segment, cell = np.divmod(key, most)
    group_node, group_feature = np.divmod(segment, d)
    unordered = np.flatnonzero(categorical[group_feature])
    if len(unordered):  # groups of one segment lie side by side and stay so
        by_mean = unordered[np.lexsort((sums[unordered] / size[unordered], segment[unordered]))]
        for part in (size, sums, cell):
            part[unordered] = part[by_mean]
    # Left of a split: this group and those before it in its segment.
    first = np.flatnonzero(np.concatenate([[True], segment[1:] != segment[:-1]]))
    length = np.diff(np.append(first, len(segment)))
    n_left, sum_left = np.cumsum(size), np.cumsum(sums)
    n_left -= np.repeat(n_left[first] - size[first], length)
    sum_left -= np.repeat(sum_left[first] - sums[first], length)
    n_all, sum_all = n[group_node], total[group_node]
    n_right = n_all - n_left
    with np.errstate(divide="ignore", invalid="ignore"):
        gain = sum_left**2 / n_left + (sum_all - sum_left) ** 2 / n_right - sum_all**2 / n_all
    gain[(n_left < min_leaf) | (n_right < min_leaf)] = 0.0
    gain[gain < threshold] = 0.0
    # Features that a node may not use count only if no other one splits it; equal gains are decided by chance.
    draw = rng.random((nodes, d))
    weight = np.where(np.argsort(np.argsort(draw, axis=1), axis=1) < n_features, 1.0, 1e-6) * (1 + 1e-9 * draw)
    gain *= weight.ravel()[segment]
    node_first = np.flatnonzero(np.concatenate([[True], group_node[1:] != group_node[:-1]]))
    best_gain = np.maximum.reduceat(gain, node_first)
    at_best = np.flatnonzero(gain == np.repeat(best_gain, np.diff(np.append(node_first, len(gain)))))
    _, pick = np.unique(group_node[at_best], return_index=True)
    best = at_best[pick]  # one group for each node
    splits = best_gain > 0
    feature = np.where(splits, group_feature[best], -1)
    # An ordered feature is cut at random between the groups on either side, an unordered one cell by cell.
    following = np.where(splits, cell[np.minimum(best + 1, len(cell) - 1)], cell[best] + 1)
    cut = rng.integers(cell[best], np.maximum(following, cell[best] + 1))
    left = np.arange(most) <= cut[:, None]
    mixed = splits & categorical[feature]
    if mixed.any():
        left[mixed] = rng.random((mixed.sum(), most)) < 0.5
        of_split = np.flatnonzero(mixed[group_node] & (group_feature == feature[group_node]))
        left[group_node[of_split], cell[of_split]] = of_split <= best[group_node[of_split]]
    return feature, left


def _groups(key: np.ndarray, y: np.ndarray, keys: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The keys that occur in `key` (rows, d), ascending, how often each does, and the sum of y (rows,) over it."""
    if keys <= 16 * key.size:
        flat = key.ravel()
        size = np.bincount(flat, minlength=keys)
        found = np.flatnonzero(size)
        return found, size[found], np.bincount(flat, np.repeat(y, key.shape[1]), keys)[found]
    bits = len(y).bit_length()  # key and row sorted as one number beat argsort
    key = np.sort((key << bits | np.arange(len(y))[:, None]).ravel())
    row = key & ((1 << bits) - 1)
    key >>= bits
    starts = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]]))
    return key[starts], np.diff(np.append(starts, len(key))), np.add.reduceat(y[row], starts)
