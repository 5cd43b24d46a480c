"""Pairs as JRDB has them: on one person or on both with other labels, with levels 1-3, and with absent partners."""

import copy
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from extract.backbones.weights import LoadedBackbone
from extract.synth.annotate import annotate
from extract.synth.background import HEIGHT, WIDTH
from extract.synth.crowd import draw_crowd
from store.reader import load_store, store_info
from tests.jobs import extract_store
from tests.jrdb_folder import write_image, write_labels

Frames = dict[str, list[dict[str, Any]]]
Pairs = dict[tuple[str, str, str], frozenset[str]]  # (frame, person, person) -> labels
ABSENT = 900_000  # ids from here on have no box
JRDB_PAR = Path(__file__).parents[4] / "shared/data/jrdb-par/labels/labels_2d_activity_social_stitched"


def drawn_frames(seed: int, count: int = 4) -> Frames:
    rng = np.random.default_rng(seed)
    groups = draw_crowd(rng, count, 25)
    return {f"{frame:06d}.jpg": annotate(groups, frame, f"{frame:06d}.jpg", rng) for frame in range(count)}


def pairs_in(frames: Frames) -> Pairs:
    """The labels of each pair in all of its mentions."""
    labels: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for frame, objects in frames.items():
        for item in objects:
            for entry in item["H-interaction"]:
                one, other = sorted((item["label_id"], entry["pair"]))
                labels[frame, one, other] |= set(entry["inter_labels"])
    return {pair: frozenset(found) for pair, found in labels.items()}


def perturbed(frames: Frames, rng: np.random.Generator) -> tuple[Frames, int]:
    """The same pairs as the data set's owners write them, and one more absent partner for each 20 pairs.

    Half of the pairs have one mention. The others have two that split the pair's labels. Levels are 1 to 3.
    """
    frames = copy.deepcopy(frames)
    absent = 0
    persons = {(frame, item["label_id"]): item for frame, objects in frames.items() for item in objects}
    pairs = pairs_in(frames)
    for item in persons.values():
        item["H-interaction"] = []
    for index, ((frame, *both), unordered) in enumerate(pairs.items()):
        rng.shuffle(both)
        labels = sorted(unordered)
        sides: list[list[str]] = [[], []]
        for label in labels:
            sides[rng.integers(2)].append(label)
        if rng.random() < 0.5:
            sides = [labels]
        for (person, partner), listed in zip((both, both[::-1]), sides, strict=False):
            levels = {label: int(rng.integers(1, 4)) for label in listed}
            persons[frame, person]["H-interaction"].append({"pair": partner, "inter_labels": levels})
        if index % 20 == 0:
            absent += 1
            entry = {"pair": f"pedestrian:{ABSENT + absent}", "inter_labels": {"conversation": 2}}
            persons[frame, both[0]]["H-interaction"].append(entry)
    return frames, absent


def stored_pairs(store: Path) -> Pairs:
    tables = load_store(store).tables
    pairs = {}
    for (a, b), frame, label in zip(tables.pair, tables.pair_frame, tables.label, strict=True):
        one, other = sorted(f"pedestrian:{tables.person_id[row]}" for row in (a, b))
        pairs[str(tables.frame_name[frame]), one, other] = frozenset(tables.label_sets[label])
    return pairs


def check_job(frames: Frames, seed: int, folder: Path, loaded: LoadedBackbone) -> None:
    """Extracts perturbed annotations at the default --max_skipped: each pair is stored with all of its labels."""
    changed, absent = perturbed(frames, np.random.default_rng(seed))
    write_labels(folder, "s", changed)
    for number, frame in enumerate(changed):
        write_image(folder, "s", frame, number, (WIDTH, HEIGHT))
    extract_store(loaded, folder, folder / "store", persons="paired")
    assert stored_pairs(folder / "store") == pairs_in(frames)
    info = store_info(folder / "store")
    assert info["skipped"] == {"missing_partner": absent}
    assert info["planned"]["pairs"] == info["stored"]["pairs"] + absent == len(pairs_in(frames)) + absent


@pytest.mark.parametrize("seed", [0, 1])
def test_r22_a_job_on_drawn_pairs_as_jrdb_has_them_runs_at_its_defaults(
    seed: int, tmp_path: Path, loaded: LoadedBackbone
) -> None:
    check_job(drawn_frames(seed), seed, tmp_path, loaded)


@pytest.mark.skipif(not JRDB_PAR.is_dir(), reason="needs the annotations of JRDB-PAR")
def test_r22_a_job_on_annotations_of_jrdb_runs_at_its_defaults(tmp_path: Path, loaded: LoadedBackbone) -> None:
    path = JRDB_PAR / "bytes-cafe-2019-02-07_0.json"
    frames = dict(list(json.loads(path.read_text())["labels"].items())[:3])
    for objects in frames.values():
        for item in objects:
            item.setdefault("H-interaction", [])
    check_job(frames, 2, tmp_path, loaded)
