"""From rounds to rows, and rows to lines of text."""

from __future__ import annotations

import statistics
from typing import Any


def summarise(result: dict[str, Any], measure: str) -> list[dict[str, Any]]:
    """One row per contender; ratios are medians of the per-round ratios to the first one."""
    rows = []
    base = next(iter(result["rounds"].values()))
    ceiling = result["rounds"].get("gsoloop")
    for label, rounds in result["rounds"].items():
        row: dict[str, Any] = {
            "offload": result["offload"],
            "subscribers": result["cell"]["subscribers"],
            "burst": result["cell"]["burst"],
            "sessions": result["cell"]["sessions"],
            "contender": label,
            "exact": all(each["exact"] for each in rounds),
        }
        if measure == "latency":
            row["rate"] = result["rate"]
            for which in ("every_copy", "last_copy"):
                for q in ("p50_us", "p99_us", "p999_us"):
                    values = [each["received_by_subscribers"][which][q] for each in rounds]
                    row[f"{which}_{q}"] = statistics.median(values)
            row["lost"] = sum(each["received_by_subscribers"]["lost"] for each in rounds)
        else:
            for key in ("copies_per_s", "copies_per_process_cpu_s", "copies_per_system_cpu_s"):
                row.update(spread_and_ratio(key, rounds, base))
            key = "copies_per_process_cpu_s"
            of_ceiling = spread_and_ratio(key, rounds, ceiling) if ceiling else {}
            row["of_gsoloop_ratio"] = of_ceiling.get(f"{key}_ratio")
            sizes = [each["copies_per_send"] for each in rounds if each["copies_per_send"]]
            row["copies_per_send"] = statistics.median(sizes) if sizes else None
            row["saturated"] = all(each["saturated"] for each in rounds)
            row["noise_cpus"] = max(each["idle_cpus_before"] for each in rounds)
        rows.append(row)
    return rows


def spread_and_ratio(
    key: str, rounds: list[dict[str, Any]], base: list[dict[str, Any]]
) -> dict[str, float | None]:
    pairs = [
        (each[key], other[key])
        for each, other in zip(rounds, base, strict=True)
        if each[key] is not None and other[key] is not None
    ]
    if not pairs:
        return {key: None, f"{key}_spread": None, f"{key}_ratio": None}
    values = [value for value, _ in pairs]
    median = statistics.median(values)
    return {
        key: median,
        f"{key}_spread": (max(values) - min(values)) / median if median else None,
        f"{key}_ratio": statistics.median(
            value / other if other else 0.0 for value, other in pairs
        ),
    }


THROUGHPUT_COLUMNS = {
    "sessions": "sessions",
    "subscribers": "subs",
    "burst": "burst",
    "contender": "contender",
    "copies_per_s": "copies/s",
    "copies_per_s_spread": "spread",
    "copies_per_s_ratio": "ratio",
    "copies_per_process_cpu_s": "/process CPU s",
    "copies_per_process_cpu_s_ratio": "ratio ",
    "of_gsoloop_ratio": "of gsoloop",
    "copies_per_system_cpu_s": "/system CPU s",
    "copies_per_system_cpu_s_ratio": "ratio  ",
    "copies_per_send": "copies/send",
    "exact": "exact",
    "saturated": "saturated",
    "noise_cpus": "noise CPUs",
}
LATENCY_COLUMNS = {
    "subscribers": "subs",
    "burst": "burst",
    "contender": "contender",
    "rate": "packets/s",
    "every_copy_p50_us": "p50 us",
    "every_copy_p99_us": "p99 us",
    "every_copy_p999_us": "p99.9 us",
    "last_copy_p50_us": "last copy p50",
    "last_copy_p99_us": "p99 us ",
    "last_copy_p999_us": "p99.9 us ",
    "lost": "lost",
    "exact": "exact",
}


def shown(key: str, value: object) -> str:
    if value is None:
        return "n/a"
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, float):
        if key.endswith("_ratio"):
            return f"{value:.3f}"
        if key in ("noise_cpus", "copies_per_send"):
            return f"{value:.2f}"
        if key.endswith("_spread"):
            return f"{value:.1%}"
        return f"{value:,.0f}"
    return str(value)


def print_row(columns: dict[str, str], row: dict[str, Any] | None) -> None:
    cells = []
    for key, title in columns.items():
        text = title.strip() if row is None else shown(key, row[key])
        width = max(len(title.strip()), 11 if "copies" in key and "ratio" not in key else 6)
        cells.append(text.ljust(12) if key == "contender" else text.rjust(width))
    print("  ".join(cells), flush=True)
