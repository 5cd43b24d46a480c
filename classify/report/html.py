"""The report of a run: one HTML file that includes its images and can be opened offline."""

import base64
import json
import os
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from classify.replacement import find_run
from classify.report.overlay import COLORS, MIXED, UNPAIRED
from classify.report.results import read_results
from classify.run_folder import RunFolder
from configs.printable import html_text
from configs.read_file import DOCUMENT_BYTES, read_file
from extract.backbones.hog import HOG
from store.files import make_folder, publish
from store.outputs import claim_file

_STYLE = """
:root { --ink:#1d2530; --soft:#66717f; --line:#dfe4ea; --accent:#2463eb; --paper:#fff; --back:#f4f6f8 }
* { box-sizing:border-box } body { margin:0; background:var(--back); color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif }
main { max-width:1000px; margin:0 auto; padding:32px 20px 64px } h1 { font-size:26px; margin:0 0 4px }
h2 { font-size:18px; margin:0 0 14px } section { background:var(--paper); border:1px solid var(--line);
border-radius:10px; padding:20px 24px; margin-top:20px } .soft { color:var(--soft) }
.metrics { display:flex; flex-wrap:wrap; gap:36px } .metric b { display:block; font-size:34px; line-height:1.2 }
table { border-collapse:collapse; width:100% } td,th { text-align:left; padding:6px 10px 6px 0;
border-bottom:1px solid var(--line); vertical-align:middle } th { color:var(--soft); font-weight:500; font-size:14px }
th.wide { width:35% }
td.n { text-align:right; font-variant-numeric:tabular-nums; width:80px } .bar { background:var(--back); height:14px;
border-radius:7px; overflow:hidden } .bar i { display:block; height:100%; background:#a9b6c6 }
tr.own .bar i { background:var(--accent) } tr.own td { font-weight:600 } img { max-width:100%; height:auto }
.warning { color:#a33a00; margin:8px 0 0; font-weight:600 }
.strip { overflow-x:auto; margin-bottom:12px } .strip img { max-width:none; height:320px; display:block }
.legend span { margin-right:18px } .legend i { display:inline-block; width:12px; height:12px; margin-right:6px;
border:1px solid var(--line) }
.plots { display:grid; grid-template-columns:repeat(auto-fit,minmax(320px,1fr)); gap:20px; align-items:start }
code { font-size:13px; overflow-wrap:anywhere } details summary { cursor:pointer; color:var(--soft) }
"""
_IMAGES = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg"}  # by the first bytes of the file
_BASELINES = {
    "majority": "always the most frequent class",
    "spatial_only": "the 8 spatial features alone",
    "knn": "nearest neighbours on the cached features",
}


def write_report(run: Path, out: Path, overlays: Sequence[Path] = (), overwrite: bool = False) -> Path:
    """Writes the report of a finished run to `out` and returns `out`. RUN/report.html is replaced without `overwrite`.

    Args:
        overlays: image files of predictions to include.

    Raises:
        ConfigError: `out` may not be written; see `claim_file`.
        DataError: the folder does not contain a finished run. StorageError: the file cannot be written.
    """
    results = read_results(run)
    folder = find_run(run)
    own_report = out.resolve() == folder.report.resolve()
    claim_file(out, overwrite=overwrite or own_report, inputs=folder.files)
    plots = {"Confusion matrix, test split": folder.confusion_matrix, "Training": folder.curves}
    sections = [
        _headline(results),
        _section("Comparison with the baselines, test split", _baseline_table(results)),
        _section("Per class, test split", _class_table(results)),
        *([_section("Pairs of each class and split", _split_table(results))] if "class_table" in results else []),
        *([_section("Data", _ledger_table(results["data"]))] if "data" in results else []),
        _section("Plots", _figures(plots)),
        *([_section("Predictions for test frames", _legend(results) + _overlays(overlays))] if overlays else []),
        _section("Run", _details(folder, results)),
    ]
    title = f"{results['config']['backbone_name']}, {results['config']['fusion_strategy']}"
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{html_text(title)}</title><style>{_STYLE}</style><main><h1>What pairs of people do together</h1>"
        f'<div class="soft">{html_text(title)}, {html_text(results["mode"].replace("_", " "))}</div>'
        f"{''.join(sections)}</main></html>\n"
    )
    make_folder(out.parent)
    publish(out, page.encode())
    return out


def _section(title: str, content: str) -> str:
    return f"<section><h2>{html_text(title)}</h2>{content}</section>"


def _headline(results: dict[str, Any]) -> str:
    present, total = results["test_classes_present"], len(results["classes"])
    metrics = {
        "test MPCA": f"{results['test_mpca']:.3f}",
        "test accuracy": f"{results['test_accuracy']:.1%}",
        "test pairs": f"{results['test_pairs']:,}",
        "seconds to train": f"{results['seconds']['train']:.1f}",
    }
    cells = "".join(f'<div class="metric"><b>{value}</b>{html_text(name)}</div>' for name, value in metrics.items())
    note = f"MPCA: mean per-class accuracy over the {present} of {total} classes present."
    warnings = "".join(f'<p class="warning">Warning: {html_text(text)}.</p>' for text in results.get("warnings", []))
    return f'<section><div class="metrics">{cells}</div><div class="soft">{note}</div>{warnings}</section>'


def _baseline_table(results: dict[str, Any]) -> str:
    rows = [("this run", results["test_mpca"], results["test_accuracy"], True)]
    for name, metrics in results["baselines"].items():
        rows.append((f"{name}: {_BASELINES.get(name, '')}", metrics["mpca"], metrics["accuracy"], False))
    body = "".join(
        f'<tr class="{"own" if is_run else ""}"><td>{html_text(name)}</td><td>{_bar(mpca)}</td>'
        f'<td class="n">{mpca:.3f}</td><td class="n">{accuracy:.1%}</td></tr>'
        for name, mpca, accuracy, is_run in rows
    )
    return f"<table><tr><th>model</th><th class='wide'></th><th>MPCA</th><th>accuracy</th></tr>{body}</table>"


def _class_table(results: dict[str, Any]) -> str:
    pairs = [sum(row) for row in results["test_confusion_matrix"]]
    rows = zip(results["classes"], results["test_per_class_accuracy"], pairs, strict=True)
    body = "".join(
        f"<tr><td>{html_text(name)}</td><td>{'not present' if accuracy is None else _bar(accuracy)}</td>"
        f'<td class="n">{"" if accuracy is None else f"{accuracy:.1%}"}</td><td class="n">{count:,}</td></tr>'
        for name, accuracy, count in rows
    )
    return f"<table><tr><th>class</th><th class='wide'></th><th>accuracy</th><th>pairs</th></tr>{body}</table>"


def _split_table(results: dict[str, Any]) -> str:
    names = {"train": "train", "val": "val", "test": "test", "to_earlier_class": "given to an earlier class"}
    head = "".join(f"<th>{name}</th>" for name in names.values())
    body = "".join(
        f"<tr><td>{html_text(name)}</td>" + "".join(f'<td class="n">{row[key]:,}</td>' for key in names) + "</tr>"
        for name, row in results["class_table"].items()
    )
    return f"<table><tr><th>class</th>{head}</tr>{body}</table>"


def _ledger_table(data: dict[str, Any]) -> str:
    """What was planned, used and skipped, from `Ledger.to_dict`."""
    kinds = ("frames", "persons", "pairs")
    rows = [("planned", data["planned"]), ("used", data["used"])]
    reasons = sorted({reason for counts in data["skipped"].values() for reason in counts})
    rows += [(f"skipped: {name}", {kind: data["skipped"][kind].get(name, 0) for kind in kinds}) for name in reasons]
    head = "".join(f"<th>{html_text(kind)}</th>" for kind in kinds)
    body = "".join(
        f"<tr><td>{html_text(name)}</td>" + "".join(f'<td class="n">{counts[kind]:,}</td>' for kind in kinds) + "</tr>"
        for name, counts in rows
    )
    return f"<table><tr><th></th>{head}</tr>{body}</table>"


def _bar(value: float) -> str:
    return f'<div class="bar"><i style="width:{100 * value:.1f}%"></i></div>'


def _figures(plots: dict[str, Path]) -> str:
    figures, missing = "", ""
    for caption, path in plots.items():
        url = _data_url(path)
        if url:
            figures += f'<figure style="margin:0"><img alt="{html_text(caption)}" src="{url}">'
            figures += f'<figcaption class="soft">{html_text(caption)}</figcaption></figure>'
        elif os.path.lexists(path):
            missing += f"<p>{html_text(path.name)} is not a regular file with an image, so it is left out.</p>"
    if not figures and not missing:
        missing = "No plots: install the extra <code>plots</code> and train again."
    return f'<div class="plots">{figures}</div>{missing}'


def _overlays(paths: Sequence[Path]) -> str:
    """Panoramas are wide, so each image scrolls horizontally."""
    return "".join(
        f'<div class="strip"><img alt="predictions for {html_text(path.name)}" src="{_data_url(path)}"></div>'
        for path in paths
    )


def _legend(results: dict[str, Any]) -> str:
    """The colours of the classes in the overlays."""
    colored = zip(results["classes"], cycle(COLORS), strict=False)
    marks = "".join(f'<span><i style="background:{color}"></i>{html_text(name)}</span>' for name, color in colored)
    for color, name in ((MIXED, "in pairs of several classes"), (UNPAIRED, "in no pair")):
        marks += f'<span><i style="background:{color}"></i>{name}</span>'
    return f'<p class="legend">{marks}</p>'


def _data_url(path: Path) -> str:
    """The PNG or JPEG file `path` as a URL; "" if it is missing, a link or something else than such an image."""
    try:
        data = read_file(path, max_bytes=DOCUMENT_BYTES, follow_links=False)
    except OSError:
        return ""
    kind = next((kind for start, kind in _IMAGES.items() if data.startswith(start)), "")
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}" if kind else ""


def _details(folder: RunFolder, results: dict[str, Any]) -> str:
    config = results["config"]
    seconds = ", ".join(f"{stage} {value:.1f}" for stage, value in results["seconds"].items())
    details = {
        "model": str(folder.best_model),
        "backbone": config["backbone_name"],
        "weights": "none" if config["backbone_name"] == HOG else config["weights"],
        "head": f"{config['fusion_strategy']}, visual features {config['visual_feature_dim']}D",
        "best epoch": f"{results['best_epoch']} of {results['epochs_run']} run, validation MPCA "
        f"{results['best_val_mpca']:.3f}",
        "seconds": seconds,
        "store fingerprint": results["store_fingerprint"] or "none (end-to-end run)",
        "versions": ", ".join(f"{name} {version}" for name, version in results["versions"].items()),
    }
    rows = "".join(
        f"<tr><th>{html_text(name)}</th><td><code>{html_text(text)}</code></td></tr>" for name, text in details.items()
    )
    full_config = html_text(json.dumps(config, indent=1, ensure_ascii=False))
    return (
        f"<table>{rows}</table><details><summary>configuration</summary><pre><code>{full_config}</code></pre></details>"
    )
