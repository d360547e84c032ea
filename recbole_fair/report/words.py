"""Sentences computed from numbers: what a run, a sweep or a dossier says, without a word that no number stands for."""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recbole_fair.analysis.grid import setting_text
from recbole_fair.evaluator.directions import best_at_zero, display_name, smaller_is_better

Values = Mapping[str, Any]

#: Metrics of the headline, the first of each row that was computed.
_HEADLINES = (
    ("ndcg", "recall", "hit", "mrr"),
    ("giniindex", "exposuregini"),
    ("itemcoverage", "aggregatediversity"),
    ("averagepopularity", "popularitylift", "tailpercentage"),
)
_MEANINGS = {
    "ndcg": "accuracy",
    "recall": "accuracy",
    "hit": "accuracy",
    "mrr": "accuracy",
    "giniindex": "how unevenly items are shown",
    "exposuregini": "how unevenly items are seen",
    "itemcoverage": "share of items that are shown at all",
    "aggregatediversity": "items that are shown at all",
    "averagepopularity": "popularity of what is shown",
    "popularitylift": "popularity of what is shown",
    "tailpercentage": "share of unpopular items shown",
}


@dataclass(frozen=True)
class Headline:
    """One number of the headline.

    Attributes:
        name: of the metric, for people.
        meaning: in a few words.
        before: the base's value, or None without a base.
        after: the value that the run is about.
        change: in percent of the base, or None.
        verdict: ``better``, ``worse`` or ``same``; empty without a base.
    """

    name: str
    meaning: str
    before: float | None
    after: float
    change: float | None
    verdict: str


def short(value: Any, digits: int = 4) -> str:
    """A number for people: up to so many significant digits, no exponent for usual sizes, a dash for none."""
    if value is None or value != value:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.{digits}g}"


def percent(share: float) -> str:
    """A share in percent, with as many digits as its size asks for."""
    size = abs(100 * share)
    return f"{100 * share:.{0 if size >= 10 else 1 if size >= 1 else 2}f} %"


def verdict(metric: str, before: float, after: float) -> str:
    """Whether a change of a metric is for the ``better``, for the ``worse`` or none (``same``)."""
    a, b = (abs(before), abs(after)) if best_at_zero(metric) else (before, after)
    if a == b:
        return "same"
    return "better" if (b < a) == (smaller_is_better(metric) or best_at_zero(metric)) else "worse"


def relative(before: float | None, after: float | None) -> float | None:
    """Change as a share of the base's value, None where there is none."""
    if before is None or after is None or not before:
        return None
    return after / before - 1


def base_name(run: Values) -> str | None:
    """The variant that a run is compared with, None if it has but one."""
    variants = run.get("variants") or {}
    if len(variants) < 2:
        return None
    base = run.get("base_test_result")
    return next((name for name, values in variants.items() if values == base), next(iter(variants)))


def final_name(run: Values) -> str:
    """The variant that a run is about; the model itself if it has but one."""
    variants = run.get("variants") or {}
    test = run.get("test_result")
    names = [name for name, values in variants.items() if values == test]
    return names[-1] if names else str(run.get("model"))


def headlines(run: Values) -> list[Headline]:
    """The few numbers to see first: accuracy, evenness, coverage, popularity, each at the first cutoff."""
    test = run.get("test_result") or {}
    before = run.get("base_test_result") or {}
    found = []
    for choice in _HEADLINES:
        keys = [key for name in choice for key in test if key.partition("@")[0] == name and test[key] is not None]
        if not keys:
            continue
        key = keys[0]
        old = before.get(key)
        found.append(
            Headline(
                name=display_name(key),
                meaning=_MEANINGS[key.partition("@")[0]],
                before=old,
                after=test[key],
                change=relative(old, test[key]),
                verdict="" if old is None else verdict(key, old, test[key]),
            )
        )
    return found


# -- a run -------------------------------------------------------------------------------------------------------------


def run_sentences(run: Values) -> list[str]:
    """What a run did and what came of it."""
    test = run.get("test_result")
    if not test:
        return ["There is no test data, so that there are no test results."]
    before, base, final = run.get("base_test_result"), base_name(run), final_name(run)
    sentences = [_protocol(run)]
    if before and base is not None:
        for line in headlines(run):
            if line.before is None:
                continue
            sentences.append(_change_sentence(line, base, final))
    sentences += _interval_sentence(run, base)
    sentences += _lorenz_sentence(run, base, final)
    sentences += _exposure_sentence(run, base, final)
    return sentences


def _protocol(run: Values) -> str:
    popularity = run.get("popularity") or {}
    cutoffs = sorted({int(key.partition("@")[2]) for key in run["test_result"] if key.partition("@")[2].isdigit()})
    lists = f"lists of {' and '.join(map(str, cutoffs))}" if cutoffs else "scores"
    users = f" for {short(run['n_users'])} users" if run.get("n_users") else ""
    items = f" out of {short(popularity['items'])} items" if popularity.get("items") else ""
    seed = f", seed {run['seed']}" if run.get("seed") is not None else ""
    text = f"{run.get('model')} was evaluated on the test part of {run.get('dataset')}{seed}: {lists}{users}{items}."
    masks = {
        "none": " Items that a user knows already may be recommended again.",
        "train": " Items of a user's training history are not recommended again.",
        "all": " Items that a user knows already are not recommended again.",
    }
    return text + masks.get(str(run.get("mask_seen")), "")


def _change_sentence(line: Headline, base: str, final: str) -> str:
    if line.verdict == "same":
        return f"{line.name} ({line.meaning}) is {short(line.after)} in {base} and {final} alike."
    assert line.before is not None
    moved = "rises" if line.after > line.before else "falls"
    by = "" if line.change is None else f", by {percent(abs(line.change))}"
    return (
        f"{line.name} ({line.meaning}) {moved} from {short(line.before)} ({base}) to {short(line.after)} "
        f"({final}){by}: {'for the better' if line.verdict == 'better' else 'for the worse'}."
    )


def _interval_sentence(run: Values, base: str | None) -> list[str]:
    intervals, before = run.get("intervals") or {}, run.get("base_test_result") or {}
    if not intervals or base is None:
        return []
    known = {key: bounds for key, bounds in intervals.items() if None not in bounds and before.get(key) is not None}
    inside = [display_name(key) for key, (low, high) in known.items() if low <= before[key] <= high]
    outside = [display_name(key) for key in known if display_name(key) not in inside]
    parts = []
    if outside:
        parts.append(f"The value of {base} lies outside the 95 % interval for {_list(outside)}")
    if inside:
        parts.append(
            f"{'and inside' if parts else f'The value of {base} lies inside the 95 % interval'} for {_list(inside)}"
        )
    return [", ".join(parts) + "."] if parts else []


def _lorenz_sentence(run: Values, base: str | None, final: str) -> list[str]:
    curves = run.get("lorenz_curves") or {final: (run.get("curves") or {}).get("lorenz")}
    tops = {}
    for name in (base, final):
        by_cutoff = curves.get(name) if name is not None else None
        if by_cutoff:
            curve = by_cutoff[min(by_cutoff, key=int)]
            tops[str(name)] = 1 - lorenz_at(curve["items"], curve["exposure"], 0.9)
    if final not in tops:
        return []
    text = f"The tenth of the items that is shown most fills {percent(tops[final])} of all places"
    if base in tops:
        text += f"; in {base} it fills {percent(tops[str(base)])}"
    return [text + "."]


def lorenz_at(items: Sequence[float], exposure: Sequence[float], share: float) -> float:
    """Height of a Lorenz curve at a share of the items, by linear interpolation."""
    place = bisect.bisect_left(items, share)
    if place == 0:
        return exposure[0]
    if place == len(items):
        return exposure[-1]
    left, right = items[place - 1], items[place]
    weight = (share - left) / (right - left)
    return exposure[place - 1] + weight * (exposure[place] - exposure[place - 1])


def _exposure_sentence(run: Values, base: str | None, final: str) -> list[str]:
    curves = run.get("exposure_curves") or {final: (run.get("curves") or {}).get("exposure")}
    tops = {}
    for name in (base, final):
        curve = curves.get(name) if name is not None else None
        if curve:
            tops[str(name)] = exposure_of_head(curve, 0.1)
    if final not in tops:
        return []
    text = f"An item of the most popular tenth is exposed {short(tops[final], 3)} times as much as the average item"
    if base in tops:
        text += f", in {base} {short(tops[str(base)], 3)} times"
    return [text + "."]


def exposure_of_head(curve: Values, share: float) -> float:
    """Mean exposure of the most popular items, as a multiple of the average item's, at the shortest list.

    Args:
        curve: an exposure curve of a result document.
        share: of the items, rounded up to whole groups.
    """
    exposure = curve["exposure"][min(curve["exposure"], key=int)]
    wanted, items, total = share * sum(curve["items"]), 0, 0.0
    for size, value in zip(curve["items"], exposure, strict=True):
        if items >= wanted - 1e-9:
            break
        items, total = items + size, total + size * value
    return total / items


# -- a sweep, a dossier ------------------------------------------------------------------------------------------------


def sweep_sentences(sweep: Values) -> list[str]:
    """What a sweep found."""
    x, y = sweep["x"], sweep["y"]
    keys = list(sweep.get("grid") or _grid_keys(sweep))
    sentences = [
        f"{short(len(sweep['settings']))} settings of {_list(keys)} were tried; "
        f"on validation, {_count(len(sweep['front']), 'of them is', 'of them are')} not beaten in both "
        f"{display_name(y)} and {display_name(x)}."
    ]
    chosen = sweep.get("chosen")
    bounds = [_bound_text(bound) for bound in sweep.get("subject_to") or []]
    if chosen is None:
        return [*sentences, f"No setting keeps the bounds on validation ({_list(bounds)})."]
    setting = setting_text({key: chosen[key] for key in keys})
    reason = f"the best {display_name(x)} on validation" + (f" with {_list(bounds)}" if bounds else "")
    sentences.append(f"{setting} is chosen: {reason}.")
    base = sweep["base"]["test"]
    parts = []
    for name in dict.fromkeys((y, x)):
        old, new = base.get(name), chosen.get(f"test {name}")
        change = relative(old, new)
        if old is None or new is None:
            continue
        by = "" if change is None else f" ({100 * change:+.1f} %)"
        parts.append(f"{display_name(name)} {short(old)} → {short(new)}{by}")
    return [*sentences, f"On test it gives, against the plain model: {'; '.join(parts)}."]


def _bound_text(bound: Any) -> str:
    if isinstance(bound, Mapping):
        return f"{display_name(str(bound['metric']))} {bound['sign']} {short(bound['bound'])}"
    return str(bound)


def _grid_keys(sweep: Values) -> list[str]:
    rows = sweep["settings"] or [{}]
    return [key for key in rows[0] if not key.startswith(("valid ", "test ")) and key != "front"]


def dossier_sentences(dossier: Values) -> list[str]:
    """What a dossier found."""
    if dossier.get("method") == "SPREE":
        chosen = next(row for row in dossier["probe"] if row["chosen"])
        means = [f"{entry['mean']:+.3f} ({name})" for name, entry in dossier["bias"].items()]
        return [
            f"A linear probe tells users of popular from users of unpopular items with an accuracy of "
            f"{short(chosen['accuracy'])} at block {chosen['block']}, position {chosen['position']}, which is steered.",
            f"Mean bias of a user's list of {dossier['list_length']} against the user's history, 0 being calibrated: "
            f"{_list(means)}.",
        ]
    counts = dossier["neurons"]
    sentences = [
        f"{short(counts['alive'])} of {short(counts['count'])} neurons fire for some user; {short(counts['above_1'])} "
        f"answer clearly to users of popular items (effect size above 1), {short(counts['below_1'])} to users of "
        "unpopular ones."
    ]
    shares = dossier["head_share"]["quantiles"]
    for side, entries in dossier["strongest"].items():
        if entries and shares:
            value = entries[0]["head_share_of_top_users"]
            sentences.append(
                f"The real users who activate neuron {entries[0]['neuron']}, the strongest that leans to {side} users, "
                f"have {percent(value)} popular items in their histories (all users: median {percent(shares[2])})."
            )
    for row in dossier["distances"]:
        moved = "farther from" if row["change"] > 0 else "nearer to"
        sentences.append(
            f"Steering moves users {moved} synthetic users of {row['to']} items: Wasserstein distance "
            f"{short(row['real'])} → {short(row['steered'])} (permutation test, p {_p(row['p_value'])})."
        )
    return sentences


def _p(value: float) -> str:
    return f"= {value:.3f}" if value >= 0.001 else f"= {value:.1g}"


def _count(number: int, one: str, many: str) -> str:
    return f"{short(number)} {one if number == 1 else many}"


def _list(words: Sequence[str]) -> str:
    """Words joined as in a sentence."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"
