"""Texts for people about a store, its verification and its repair."""

from typing import Any

from configs.printable import printable
from store.format.ledger import MISSING_PARTNER
from store.format.recipe import FIRST_FORMAT, FORMAT
from store.tables import AXES


def store_text(info: dict[str, Any]) -> str:
    """The lines of `stage2 store info`, from `store.reader.store_info`; after an extraction also its statistics."""
    recipe, planned = info["recipe"], info["planned"]
    state = "complete" if info["complete"] else "unfinished: run the same extraction again to continue"
    rows = [f"{axis}s" for axis in AXES]
    identity = "images by their sha256"
    if info["format"] == FIRST_FORMAT:
        identity = "images by name and size only, which is weaker; `stage2 store repair` converts the store"
    lines = [
        f"{info['path']} ({state})",
        f"  fingerprint  {info['fingerprint']}",
        f"  format       {info['format']}; the store knows its {identity}",
        f"  recipe       {recipe['backbone']} ({printable(info['weights'])}, {recipe['weights_sha256'][:12]}), "
        f"crops of {recipe['crop_size']} px, {info['visual_dim']} values as {info['dtype']}, {recipe['views']} view(s)",
        *([f"  int8         {info['int8']['text']}"] if "int8" in info else []),
        f"  data         {info['scenes']} scenes, every {info['frame_interval']}. frame, "
        f"{info['selected_persons']} persons",
        *(f"  {kind:<12} {info[kind]:,} of {planned[kind]:,} stored" for kind in rows),
        f"  size         {info['bytes'] / 1e6:,.1f} MB in {info['units']} shards; zero values {info['zero_share']:.2%}",
    ]
    notes = {MISSING_PARTNER: " (not damage)"}
    lines += [
        f"  skipped      {printable(reason)}: {count}{notes.get(reason, '')}"
        for reason, count in info["skipped"].items()
    ]
    if "frames_decoded" in info:
        lines += _extraction_lines(info)
    if "crops" in info:
        lines.append(store_text(info["crops"]))
    return "\n".join(lines)


def _extraction_lines(info: dict[str, Any]) -> list[str]:
    stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in info["seconds"].items())
    lines = [
        f"  this run     {info['frames_decoded']:,} frames decoded, {info['crops_forwarded']:,} crops forwarded, "
        f"{info['rows_reused']:,} features and {info['units_reused']} whole units reused",
        f"  seconds      {stages}",
    ]
    lines += [f"  bound by     {info['bound']}"] if info["bound"] else []
    return lines + ([f"  faster here  {info['faster']}"] if info["faster"] and info["crops_forwarded"] else [])


def verify_text(report: dict[str, Any], limit: int = 20) -> str:
    """The lines of `stage2 store verify`, from its `Report.to_dict`, with at most `limit` faults per store."""
    text = _verify_text(report, limit)
    return f"{text}\n{_verify_text(report['crops'], limit)}" if "crops" in report else text


def _verify_text(report: dict[str, Any], limit: int) -> str:
    faults = report["faults"]
    if not faults:
        return (
            f"{report['path']} is sound: {report['units']} units, {report['persons']:,} persons, "
            f"{report['bytes'] / 1e6:,.1f} MB, every byte checked"
        )
    counts = ", ".join(f"{kind} {count}" for kind, count in report["fault_counts"].items())
    lines = [f"{report['path']} is faulty ({counts}), {len(report['bad_units'])} of {report['units']} units:"]
    lines += [f"  {fault['kind']:<16} {printable(fault['message'])}" for fault in faults[:limit]]
    if len(faults) > limit:
        lines.append(f"  and {len(faults) - limit} more; --json lists them all")
    return "\n".join(lines)


def repair_text(result: dict[str, Any]) -> str:
    """The lines of `stage2 store repair`, from `extract.repair.Repaired.to_dict`."""
    text = _repair_text(result)
    return f"{text}\n{_repair_text(result['crops'])}" if "crops" in result else text


def _repair_text(result: dict[str, Any]) -> str:
    if result["converted"]:
        return (
            f"{result['path']} is converted to format {FORMAT}: the features of {result['converted']} units are kept, "
            f"{len(result['units'])} units computed again, {result['crops_forwarded']:,} crops forwarded"
        )
    if not result["faults"]:
        return f"{result['path']} is sound; nothing was computed"
    return (
        f"{result['path']} is repaired: {len(result['units'])} units computed again, {result['frames_decoded']:,} "
        f"frames decoded, {result['crops_forwarded']:,} crops forwarded; {len(result['differing'])} shards differ from "
        f"before"
    )
