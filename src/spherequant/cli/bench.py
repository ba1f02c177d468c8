"""``spherequant bench``: search speed on this machine, beside FAISS and ScaNN."""

# Annotations are read by typer when the program runs: no `from __future__ import annotations`.
import statistics
from typing import Annotated, Any

import typer

from spherequant.cli.options import JsonOption
from spherequant.cli.output import note, say, say_json

_OURS = "spherequant"


def bench(
    items: Annotated[int, typer.Option(min=1, help="Codes to search.")] = 1_000_000,
    bits: Annotated[
        list[int] | None, typer.Option(help="Length of a code; may be given more than once.")
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Results for each query.")] = 100,
    clusters: Annotated[
        int, typer.Option(min=0, help="Clusters that codes come in; 0 for uniform codes.")
    ] = 0,
    repetitions: Annotated[int, typer.Option(min=1, help="Timings of each.")] = 5,
    json: JsonOption = False,
) -> None:
    """Time searches of random codes: here, in FAISS, and in ScaNN if it is installed.

    One thread; CPU milliseconds a query, the median of the repetitions, which take turns.
    """
    from spherequant.index import scan

    lengths = bits or [16, 32, 64]
    rows = [row for length in lengths for row in _rows(items, length, k, clusters, repetitions)]
    facts = {"items": items, "k": k, "clusters": clusters, "level": scan.level(), "rows": rows}
    if json:
        say_json(facts)
        return
    say(f"{items:,} codes, top {k}, one thread, {facts['level']}; CPU milliseconds a query\n")
    say(f"{'bits':>4}  {'engine':<18} {'one query':>10} {'64 queries':>10}   times spherequant")
    for row in rows:
        times = f"{row['batch_1']:>10.3f} {row['batch_64']:>10.3f}"
        ratios = f"{row['ratio_1']:.1f} / {row['ratio_64']:.1f}"
        say(f"{row['bits']:>4}  {row['engine']:<18} {times}   {ratios}")


def _rows(items: int, bits: int, k: int, clusters: int, repetitions: int) -> list[dict[str, Any]]:
    from spherequant.index import comparison

    collection = comparison.make_collection(items, bits, clusters=clusters)
    engines: dict[str, comparison.Search] = {_OURS: comparison.Ours(collection, bucketed=False)}
    engines[f"{_OURS}, buckets"] = comparison.Ours(collection, bucketed=True)
    if comparison.installed("faiss"):
        engines["FAISS PQ"] = comparison.faiss_pq(collection)
        comparison.check_same(engines[_OURS], engines["FAISS PQ"], collection, min(k, items))
        if items >= comparison.FEWEST_FOR_FAST_SCAN:
            engines["FAISS PQ fast scan"] = comparison.faiss_fast_scan(collection)
    else:
        note("FAISS is not installed: pip install 'spherequant[faiss]' to compare.")
    if comparison.installed("scann") and items >= comparison.FEWEST_FOR_SCANN:
        engines["ScaNN"] = comparison.scann(collection)
    timings = comparison.time_searches(engines, collection, k, repetitions)
    by = {(timing.engine, timing.batch): timing for timing in timings}
    rows = []
    for name in engines:
        row: dict[str, Any] = {"bits": bits, "engine": name}
        for batch in (1, comparison.BATCH):
            timing = by[name, batch]
            row[f"batch_{batch}"] = statistics.median(timing.milliseconds)
            row[f"ratio_{batch}"] = comparison.ratio(timing, by[_OURS, batch])[0]
        rows.append(row)
    return rows
