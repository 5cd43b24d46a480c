"""A store's description as text."""

from typing import Any


def store_text(info: dict[str, Any]) -> str:
    """The figures of `store.reader.store_info`, and of an extraction where they are there, in lines for people."""
    recipe, planned = info["recipe"], info["planned"]
    state = "complete" if info["complete"] else "unfinished: run the same extraction again to go on"
    lines = [
        f"{info['path']} ({state})",
        f"  fingerprint  {info['fingerprint']}",
        f"  recipe       {recipe['backbone']} ({info['weights']}, {recipe['weights_sha256'][:12]}), "
        f"crops of {recipe['crop_size']} px, {info['visual_dim']} values as {info['dtype']}, {recipe['views']} view(s)",
        f"  data         {info['scenes']} scenes, every {info['frame_interval']}. frame, "
        f"{info['selected_persons']} persons",
        *(f"  {kind:<12} {info[kind]:,} of {planned[kind]:,} stored" for kind in ("frames", "persons", "pairs")),
        f"  size         {info['bytes'] / 1e6:,.1f} MB in {info['units']} shards; zero values {info['zero_share']:.2%}",
    ]
    lines += [f"  skipped      {reason}: {count}" for reason, count in info["skipped"].items()]
    if "frames_decoded" in info:
        stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in info["seconds"].items())
        lines += [
            f"  this run     {info['frames_decoded']:,} frames decoded, {info['crops_forwarded']:,} crops forwarded, "
            f"{info['units_reused']} units reused",
            f"  seconds      {stages}",
        ]
        lines += [f"  bound by     {info['bound']}"] if info["bound"] else []
    if "crops" in info:
        lines.append(store_text(info["crops"]))
    return "\n".join(lines)


def verify_text(found: dict[str, Any], most: int = 20) -> str:
    """What `store.verify.verify` found, in lines for people; at most so many faults of a store are listed."""
    text = _verify_text(found, most)
    return f"{text}\n{_verify_text(found['crops'], most)}" if "crops" in found else text


def _verify_text(found: dict[str, Any], most: int) -> str:
    faults = found["faults"]
    if not faults:
        return (
            f"{found['path']} is sound: {found['units']} units, {found['persons']:,} persons, "
            f"{found['bytes'] / 1e6:,.1f} MB, every byte checked"
        )
    counts = ", ".join(f"{kind} {count}" for kind, count in found["fault_counts"].items())
    lines = [f"{found['path']} is faulty ({counts}), {len(found['bad_units'])} of {found['units']} units:"]
    lines += [f"  {fault['kind']:<16} {fault['message']}" for fault in faults[:most]]
    if len(faults) > most:
        lines.append(f"  and {len(faults) - most} more; --json lists them all")
    return "\n".join(lines)


def repair_text(found: dict[str, Any]) -> str:
    """What `extract.repair.repair` did, in lines for people."""
    text = _repair_text(found)
    return f"{text}\n{_repair_text(found['crops'])}" if "crops" in found else text


def _repair_text(found: dict[str, Any]) -> str:
    if not found["faults"]:
        return f"{found['path']} is sound; nothing was computed"
    return (
        f"{found['path']} is repaired: {len(found['units'])} units computed again, {found['frames_decoded']:,} frames "
        f"decoded, {found['crops_forwarded']:,} crops forwarded; {len(found['differing'])} shards differ from before"
    )
