"""Finds the features of persons that are stored already: by the content of their image and by their box."""

import json
import logging
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from configs.errors import StoreError
from store.format.recipe import Recipe
from store.format.shard import Shard
from store.format.shard_file import read_shard
from store.tables import Floats, Ints, Mask, Tables, Visual

_log = logging.getLogger("stage2")
_OPEN_SHARDS = 4  # kept in memory; neighbouring units need the same ones


@dataclass(frozen=True)
class KnownRows:
    """The stored features of some of N persons in F frames, for each of V views."""

    frame_size: Ints  # (F, 2) int32, width and height in pixels; 0 for frames whose image is in no store
    known: Mask  # (V, N)
    visual: tuple[Visual, ...]  # for each view the features of its known persons: (known[v].sum(), D)


def nothing_known(tables: Tables, views: int) -> KnownRows:
    """The rows of persons of whom no features are stored."""
    size = np.zeros((len(tables.frame_name), 2), np.int32)
    return KnownRows(size, np.zeros((views, len(tables.box)), bool), (np.empty((0, 0), np.float32),) * views)


class StoredRows:
    """The persons in the shards of some stores. A person is found by the sha256 of the image and the box.

    Every shard's bytes are checked before its features are used. Only tables are kept in memory.
    """

    def __init__(self, recipe: Recipe) -> None:
        """`recipe` is that of the features to find; they may be stored with another number of views."""
        self._recipe = recipe
        self._boxes: list[_Boxes] = []
        self._frames: dict[str, list[tuple[int, int]]] = defaultdict(list)  # sha256 -> (index of its shard, frame row)
        self._added: set[Path] = set()
        self._read = lru_cache(_OPEN_SHARDS)(read_shard)

    def add(self, shards: Iterable[Path]) -> None:
        """Adds the persons in the files `shards`. Damaged files, and files of another recipe, are left out."""
        for path in shards:
            if path in self._added:
                continue
            self._added.add(path)
            try:
                shard = read_shard(path)
            except StoreError as error:
                _log.warning("%s; its features are not reused", error)
                continue
            if _is_recipe(shard, self._recipe):
                for row, image in enumerate(shard.frame_sha256.tolist()):
                    self._frames[image].append((len(self._boxes), row))
                self._boxes.append(_Boxes.of_shard(path, shard))

    def find(self, tables: Tables, images: Iterable[str]) -> KnownRows:
        """The stored features of the persons in `tables`.

        Args:
            images: for each frame of `tables` the sha256 of its image.
        """
        views, offset = self._recipe.views, tables.frame_offset
        size = np.zeros((len(tables.frame_name), 2), np.int32)
        source = np.full((views, len(tables.box), 2), -1, np.int64)  # index of the shard and person row; -1: not stored
        for frame, image in enumerate(images):
            persons = slice(offset[frame], offset[frame + 1])
            for number, row in self._frames.get(image, ()):
                boxes = self._boxes[number]
                size[frame] = boxes.frame_size[row]
                found, rows = boxes.find(row, tables.box[persons])
                for view in source[: boxes.views]:
                    new = found & (view[persons, 0] < 0)
                    view[persons][new] = np.stack([np.full(new.sum(), number), rows[new]], axis=1)
        return self._load(size, source)

    def _load(self, size: Ints, source: Ints) -> KnownRows:
        """Reads the features at the rows `source` (V, N, 2) and leaves out those that can no longer be read."""
        visual = [np.empty((source.shape[1], self._recipe.visual_dim), self._recipe.dtype) for _ in source]
        for number in np.unique(source[..., 0][source[..., 0] >= 0]).tolist():
            wanted = source[..., 0] == number
            try:
                shard = self._read(self._boxes[number].path)
            except StoreError as error:
                _log.warning("%s; its features are not reused", error)
                source[wanted] = -1
                continue
            for view, stored in enumerate((shard.visual, shard.visual_flipped)[: len(source)]):
                if stored is not None:
                    visual[view][wanted[view]] = stored[source[view, wanted[view], 1]]
        known = source[..., 0] >= 0
        return KnownRows(size, known, tuple(rows[is_known] for rows, is_known in zip(visual, known, strict=True)))


@dataclass(frozen=True)
class _Boxes:
    """Where the persons of a shard are."""

    path: Path
    views: int
    frame_size: Ints  # (F, 2)
    frame_offset: Ints  # (F + 1,)
    box: Floats  # (N, 4)

    @classmethod
    def of_shard(cls, path: Path, shard: Shard) -> "_Boxes":
        views = 1 if shard.visual_flipped is None else 2
        return cls(path, views, shard.frame_size.copy(), shard.frame_offset.copy(), shard.box.copy())

    def find(self, frame: int, boxes: Floats) -> tuple[Mask, Ints]:
        """For each of `boxes` (P, 4), whether frame row `frame` has a person with exactly this box, and its row."""
        first, last = self.frame_offset[frame : frame + 2].tolist()
        if first == last:
            return np.zeros(len(boxes), bool), np.zeros(len(boxes), np.int64)
        equal = (boxes[:, None] == self.box[None, first:last]).all(axis=-1)
        return equal.any(axis=1), first + equal.argmax(axis=1)


def _is_recipe(shard: Shard, recipe: Recipe) -> bool:
    """Whether the shard's features have this recipe, apart from the number of views."""
    try:
        values: Any = json.loads(shard.attributes.get("recipe", ""))
    except ValueError:  # of format 1
        return False
    return isinstance(values, dict) and values | {"views": 0} == replace(recipe, views=0).to_dict()
