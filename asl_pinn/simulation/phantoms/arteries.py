"""Arteries for a brain in MNI space: a tree that tapers and feeds cortex before tissue fills."""

import dataclasses
from typing import NamedTuple

import numpy as np
from nibabel.affines import apply_affine, voxel_sizes
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from asl_pinn.arrays import FloatArray, IntArray
from asl_pinn.data import Phantom
from asl_pinn.errors import InputError
from asl_pinn.simulation.phantoms.mni import ARTERIES

_ROOTS = ((15.0, 2.0, -17.0), (-15.0, 3.0, -16.0), (1.0, -26.0, -40.0))  # carotids, basilar [mm]
_N_BRANCHES = 2000
_BALANCE = 0.4  # mm of new vessel that are worth a mm less of way from the circle of Willis
_STEP = 2.0  # mm between the nodes of the tree
_ANATOMY = 4  # mm; one grid for all phantoms, so that all have the same tree
_RADIUS = 2.0  # mm, of the largest vessel where the tree begins
_TIP = 5.0  # mm of vessel that the tips feed beyond the tree; keeps their radius above 0
_SPEED = 500.0  # mm/s in the largest vessel
_ARRIVAL = 0.35  # s from labelling to the circle of Willis
_LEAD = 0.15  # s at least between the arrivals in a voxel's artery and in its tissue
_VISIBLE = 0.4  # of the lumen; fast and pulsating blood loses its signal
_WINDING = 1.2  # mm, SD by which vessels wind about the straight pieces of the tree
_LARGEST_ABV = 0.03
_LEAST_ABV = 1e-4  # below it a voxel holds no artery
_N_NEIGHBOURS = 12


class _Tree(NamedTuple):
    """Nodes in an order in which parents come first.

    Attributes
    ----------
    points : ndarray, shape (N, 3)
        Where they are [mm].
    parents : ndarray of int, shape (N,)
        Index of each node's parent; its own for a root.
    """

    points: FloatArray
    parents: IntArray


def with_arteries(phantom: Phantom, *, seed: int = 0) -> Phantom:
    """Give a phantom in MNI space arteries: maps of aBV and of its arrival time.

    Trunks run from the carotid and basilar arteries along the large cerebral arteries; branches
    grow from them to random places in grey matter, by the cheapest of ways that weigh the length
    of new vessel against the way from the circle of Willis. Vessels feed what lies along them
    evenly, so that flow is proportional to the length that is fed. By Murray's law the cube of the
    radius is in proportion to the flow, and the speed of blood hence to the radius; it falls from
    0.5 m/s as the radius does from 2 to 0.2 mm. The tree is a function of the seed alone, the same
    at every resolution.

    Parameters
    ----------
    phantom : Phantom
        Whole brain with a map of ATT, to be cut into slices afterwards.
    seed : int
        Of the branches.

    Returns
    -------
    Phantom
        With values 'abv', 0 to 0.03 and 0 in voxels without an artery, and 'abat' [s], at least
        0.15 s below ATT; in voxels without an artery it is that of the arteries around.

    Raises
    ------
    InputError
        If the phantom has no map of ATT.

    References
    ----------
    Way of the branches: Cuntz et al., PLoS Comput Biol 6:e1000877 (2010). Radii: Murray, Proc Natl
    Acad Sci USA 12:207-214 (1926). Size of aBV: Chappell et al., Magn Reson Med 63:1357-1365
    (2010).

    Examples
    --------
    >>> from asl_pinn.simulation.phantoms import mni_phantom
    >>> brain = with_arteries(mni_phantom(resolution=4))
    >>> bool((brain.abat <= brain.att).all())
    True
    """
    if "att" not in phantom.values:
        raise InputError(
            "arteries need to know the ATT of the tissue; the phantom has no map of it"
        )
    tree = _grow(seed)
    lengths = np.linalg.norm(tree.points - tree.points[tree.parents], axis=1)
    radius = _radii(tree, lengths)
    arrival = _arrivals(tree, lengths, radius)
    lumen, early = _in_voxels(phantom, tree, radius, arrival)
    latest = np.maximum(phantom["att"] - _LEAD, 0.0)
    shown = _VISIBLE * lumen / np.abs(np.linalg.det(phantom.affine[:3, :3]))
    abv = -_LARGEST_ABV * np.expm1(-shown / _LARGEST_ABV)
    abv[~phantom.mask | (abv < _LEAST_ABV)] = 0.0
    return dataclasses.replace(
        phantom,
        values={
            **phantom.values,
            "abv": abv,
            "abat": np.where(phantom.mask, np.minimum(early, latest), 0.0),
        },
    )


def _grow(seed: int) -> _Tree:
    """Trunks along the way points of the large arteries, then branches to random grey matter."""
    from nilearn import datasets  # takes seconds to import

    points = [point[:3] for artery in ARTERIES.values() for point in artery]
    trunks = np.array([point for point in points if point not in _ROOTS], float)
    tree = _Tree(np.array(_ROOTS), np.arange(len(_ROOTS)))
    tree = _subdivided(_extended(tree, trunks))
    image = datasets.load_mni152_gm_template(resolution=_ANATOMY)
    grey, affine = image.get_fdata(), image.affine
    low, high = np.sort(apply_affine(affine, [np.zeros(3), np.array(grey.shape) - 1.0]), axis=0)
    rng = np.random.default_rng(seed)
    # Grey matter is a tenth of the box about the brain; these are twice what the branches need.
    drawn = rng.uniform(low, high, (20 * _N_BRANCHES, 3))
    index = np.round(apply_affine(np.linalg.inv(affine), drawn)).astype(int)
    targets = drawn[grey[tuple(index.T)] > 0.5][:_N_BRANCHES]
    return _subdivided(_extended(tree, targets))


def _extended(tree: _Tree, targets: FloatArray) -> _Tree:
    """Connect points to a tree one by one, cheapest first: new length plus balance times way."""
    way = np.zeros(len(tree.points))
    for child, parent in enumerate(tree.parents):
        way[child] = way[parent] + np.linalg.norm(tree.points[child] - tree.points[parent])
    points, parents, ways = list(tree.points), list(tree.parents), list(way)
    left = np.arange(len(targets))
    best = np.full(len(targets), np.inf)
    source = np.zeros(len(targets), int)

    def offer(node: int) -> None:
        gap = np.linalg.norm(targets - points[node], axis=1)
        cost = gap + _BALANCE * (ways[node] + gap)
        # Vessels do not cross the midline, but for those that lie on it.
        x, there = points[node][0], targets[:, 0]
        crosses = (x * there < 0.0) & (np.minimum(abs(x), np.abs(there)) > 1.0)
        better = ~crosses & (cost < best)
        best[better], source[better] = cost[better], node

    for node in range(len(points)):
        offer(node)
    while len(left):
        nearest = left[np.argmin(best[left])]
        left = left[left != nearest]
        parent = source[nearest]
        ways.append(ways[parent] + float(np.linalg.norm(targets[nearest] - points[parent])))
        points.append(targets[nearest])
        parents.append(parent)
        offer(len(points) - 1)
    return _Tree(np.array(points), np.array(parents))


def _subdivided(tree: _Tree) -> _Tree:
    """The same tree with nodes at most a step apart."""
    points: list[FloatArray] = []
    parents: list[int] = []
    renamed: list[int] = []
    for child, parent in enumerate(tree.parents):
        start, end = tree.points[parent], tree.points[child]
        n_pieces = max(1, int(np.ceil(np.linalg.norm(end - start) / _STEP)))
        previous = len(points) if parent == child else renamed[parent]
        for piece in range(1, n_pieces + 1):
            points.append(start + (end - start) * piece / n_pieces)
            parents.append(previous)
            previous = len(points) - 1
        renamed.append(previous)
    return _Tree(np.array(points), np.array(parents))


def _radii(tree: _Tree, lengths: FloatArray) -> FloatArray:
    """Radius at each node [mm]: its cube grows with the length of vessel that it feeds."""
    fed = np.full(len(lengths), 0.0)
    is_tip = np.ones(len(lengths), bool)
    is_tip[tree.parents] = False
    fed[is_tip] = _TIP
    for child in range(len(lengths) - 1, -1, -1):
        parent = tree.parents[child]
        if parent != child:
            fed[parent] += fed[child] + lengths[child]
    return _RADIUS * np.cbrt(fed / fed.max())


def _arrivals(tree: _Tree, lengths: FloatArray, radius: FloatArray) -> FloatArray:
    """When blood arrives at each node [s], at a speed in proportion to the radius."""
    arrival = np.full(len(lengths), _ARRIVAL)
    for child, parent in enumerate(tree.parents):
        if parent != child:
            speed = _SPEED / _RADIUS * (radius[child] + radius[parent]) / 2.0
            arrival[child] = arrival[parent] + lengths[child] / speed
    return arrival


def _in_voxels(
    phantom: Phantom, tree: _Tree, radius: FloatArray, arrival: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Lumen in each voxel [mm³], and the mean arrival in it or in the arteries around [s]."""
    n_along, disc = 4, _disc(24)
    fraction = (np.arange(n_along) + 0.5) / n_along
    children = np.flatnonzero(tree.parents != np.arange(len(tree.parents)))
    parents = tree.parents[children]

    def along(values: FloatArray) -> FloatArray:
        start, end = values[parents], values[children]
        steps = fraction.reshape(1, -1, *(1,) * (values.ndim - 1))
        return start[:, None] + steps * (end - start)[:, None]

    centres, r, times = along(tree.points), along(radius), along(arrival)
    way = tree.points[children] - tree.points[parents]
    first, second = _across(way)
    offsets = disc[:, 0, None] * first[:, None] + disc[:, 1, None] * second[:, None]
    samples = centres[:, :, None] + r[:, :, None, None] * offsets[:, None]
    volume = np.pi * r**2 * (np.linalg.norm(way, axis=1) / n_along)[:, None] / len(disc)
    volume, when = (np.broadcast_to(v[..., None], samples.shape[:3]) for v in (volume, times))

    index = np.round(apply_affine(np.linalg.inv(phantom.affine), samples.reshape(-1, 3)))
    inside = ((index >= 0) & (index < phantom.mask.shape)).all(axis=1)
    flat = np.ravel_multi_index(tuple(index[inside].astype(int).T), phantom.mask.shape)
    v, w = volume.ravel()[inside], when.ravel()[inside]
    widths = _WINDING / voxel_sizes(phantom.affine)
    lumen, weighted = (
        gaussian_filter(
            np.bincount(flat, weights, phantom.mask.size).reshape(phantom.mask.shape),
            widths,
            mode="constant",
            truncate=2.5,
        )
        for weights in (v, v * w)
    )
    early = weighted / np.where(lumen > 0.0, lumen, 1.0)
    bare = phantom.mask & (lumen == 0.0)
    early[bare] = _around(apply_affine(phantom.affine, np.argwhere(bare)), tree.points, arrival)
    return lumen, early


def _around(where: FloatArray, points: FloatArray, arrival: FloatArray) -> FloatArray:
    """Mean arrival at the nearest nodes, weighted by their nearness [s]."""
    distance, index = cKDTree(points).query(where, _N_NEIGHBOURS)
    weight = 1.0 / (distance**2 + _STEP**2)
    return np.asarray((weight * arrival[index]).sum(axis=1) / weight.sum(axis=1))


def _disc(n_points: int) -> NDArray[np.float64]:
    """Points evenly spread over the unit disc, shape (N, 2): a sunflower's."""
    number = np.arange(n_points)
    r, angle = np.sqrt((number + 0.5) / n_points), number * np.pi * (3.0 - np.sqrt(5.0))
    return np.stack([r * np.cos(angle), r * np.sin(angle)], axis=1)


def _across(way: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Two unit vectors at right angles to each direction and to one another."""
    along = way / np.linalg.norm(way, axis=1, keepdims=True)
    helper = np.eye(3)[np.argmin(np.abs(along), axis=1)]
    first = np.cross(along, helper)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    return first, np.cross(along, first)
