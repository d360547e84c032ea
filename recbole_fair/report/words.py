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
HEADLINES = (
    ("ndcg", "recall", "hit", "mrr"),
    ("giniindex", "exposuregini"),
    ("itemcoverage", "aggregatediversity"),
    ("popularitylift", "averagepopularity", "tailpercentage"),
    ("pce", "upd"),
)
_MEANINGS = {
    "ndcg": "accuracy",
    "recall": "accuracy",
    "hit": "accuracy",
    "mrr": "accuracy",
    "giniindex": "how unevenly items are shown",
    "exposuregini": "how unevenly items are seen",
    "itemcoverage": "share of items that are shown",
    "aggregatediversity": "items that are shown",
    "averagepopularity": "popularity of what is shown",
    "popularitylift": "popularity of lists against histories",
    "pce": "how far lists are from users' own popularity",
    "upd": "how far lists are from users' own popularity",
    "tailpercentage": "share of unpopular items",
}
_ACCURACY = ("accuracy rises{by}", "accuracy falls{by}")
_EVENNESS = ("items are shown less evenly", "items are shown more evenly")
_COVERAGE = ("more items are shown at all", "fewer items are shown at all")
_POPULARITY = ("what is shown gets more popular{by}", "what is shown gets less popular{by}")
_CALIBRATION = ("lists are further from users' own popularity", "lists are nearer to users' own popularity")
#: What it means when a metric of the headline goes up, and down.
_DIRECTIONS = {
    **dict.fromkeys(HEADLINES[0], _ACCURACY),
    **dict.fromkeys(HEADLINES[1], _EVENNESS),
    **dict.fromkeys(HEADLINES[2], _COVERAGE),
    "averagepopularity": _POPULARITY,
    "popularitylift": _POPULARITY,
    **dict.fromkeys(HEADLINES[4], _CALIBRATION),
    "tailpercentage": ("more unpopular items are shown", "fewer unpopular items are shown"),
}


@dataclass(frozen=True)
class Headline:
    """One number of the headline.

    Attributes:
        key: of the metric, ``name@k``.
        name: the same for people.
        meaning: in a few words.
        before: the base's value, or None without a base.
        after: the value that the run is about.
        change: in percent of the base, or None.
        verdict: ``better``, ``worse`` or ``same``; empty without a base.
    """

    key: str
    name: str
    meaning: str
    before: float | None
    after: float
    change: float | None
    verdict: str


def short(value: Any, digits: int = 4) -> str:
    """A number for people: whole numbers as they are, below 1 to ``digits`` places, above to so many digits.

    Args:
        value: the number; None and NaN become a dash, other things their text.
        digits: at least 1.
    """
    if value is None or value != value:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    size = abs(value)
    if isinstance(value, int) or (value == int(value) and (size == 0 or 100 <= size < 1e15)):
        return f"{int(value):,}"
    if size < 10 ** (1 - digits):
        return f"{value:.2g}"
    if size < 1:
        return f"{value:.{digits}f}"
    places = max(0, digits - len(str(int(size))))
    return f"{value:,.{places}f}"


def percent(share: float) -> str:
    """A share in percent, with as many digits as its size asks for."""
    size = abs(100 * share)
    return f"{100 * share:.{0 if size >= 10 else 1 if size >= 1 else 2}f} %"


def signed_percent(change: float) -> str:
    """A relative change in percent, with its sign."""
    return f"{100 * change:+.1f} %"


def verdict(metric: str, before: float, after: float) -> str:
    """Whether a change of a metric is for the ``better``, for the ``worse`` or none (``same``)."""
    a, b = (abs(before), abs(after)) if best_at_zero(metric) else (before, after)
    if a == b:
        return "same"
    return "better" if (b < a) == (smaller_is_better(metric) or best_at_zero(metric)) else "worse"


def relative(before: float | None, after: float | None) -> float | None:
    """Change as a share of the base's value, None where there is none: through 0 a share says nothing."""
    if before is None or after is None or not before or before * after < 0:
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
    for choice in HEADLINES:
        keys = [key for name in choice for key in test if key.partition("@")[0] == name and test[key] is not None]
        if not keys:
            continue
        key = keys[0]
        old = before.get(key)
        found.append(
            Headline(
                key=key,
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
        name = final[:1].upper() + final[1:]
        sentences.append(f"{name} against {base}: {joined([_change_words(h) for h in headlines(run) if h.verdict])}.")
    sentences += _lorenz_sentence(run, base, final)
    sentences += _exposure_sentence(run, base, final)
    sentences += _interval_sentence(run, base, final)
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


def _change_words(line: Headline) -> str:
    """A metric's change in a few words of what the metric means."""
    before, after = line.before, line.after
    assert before is not None
    values = f"({line.name} {short(before)} → {short(after)})"
    up, down = _DIRECTIONS[line.key.partition("@")[0]]
    if line.verdict == "same":
        return f"{line.meaning} stays the same ({line.name} {short(after)})"
    by = "" if line.change is None else f" by {percent(abs(line.change))}"
    return f"{(up if after > before else down).format(by=by)} {values}"


def _interval_sentence(run: Values, base: str | None, final: str) -> list[str]:
    intervals, before = run.get("intervals") or {}, run.get("base_test_result") or {}
    if not intervals or base is None:
        return []
    known = {key: bounds for key, bounds in intervals.items() if None not in bounds and before.get(key) is not None}
    inside = [display_name(key) for key, (low, high) in known.items() if low <= before[key] <= high]
    outside = [display_name(key) for key in known if display_name(key) not in inside]
    parts = []
    if outside:
        parts.append(f"The 95 % interval of {final} leaves out {base}'s value for {joined(outside)}")
    if inside:
        begin = "it holds it" if parts else f"The 95 % interval of {final} holds {base}'s value"
        parts.append(f"{begin} for {joined(inside)}, which these intervals alone do not tell apart")
    return ["; ".join(parts) + "."] if parts else []


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
    instead = f" instead of {percent(tops[str(base)])}" if base in tops else ""
    return [f"The most shown tenth of the items fills {percent(tops[final])} of all places{instead}."]


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
    instead = f" instead of {short(tops[str(base)], 2)} times" if base in tops else ""
    text = f"An item of the most popular tenth gets {short(tops[final], 2)} times the exposure of the average item"
    return [f"{text}{instead}."]


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
        f"{short(len(sweep['settings']))} settings of {joined(keys)} were tried; "
        f"on validation, {_count(len(sweep['front']), 'of them is', 'of them are')} not beaten in both "
        f"{display_name(y)} and {display_name(x)}."
    ]
    chosen = sweep.get("chosen")
    bounds = [bound_text(bound) for bound in sweep.get("subject_to") or []]
    if chosen is None:
        return [*sentences, f"No setting keeps the bounds on validation ({joined(bounds)})."]
    setting = setting_text({key: chosen[key] for key in keys})
    reason = f"the best {display_name(x)} on validation" + (f" with {joined(bounds)}" if bounds else "")
    sentences.append(f"{setting} is chosen: {reason}.")
    base = sweep["base"]["test"]
    parts = []
    for name in dict.fromkeys((y, x)):
        old, new = base.get(name), chosen.get(f"test {name}")
        change = relative(old, new)
        if old is None or new is None:
            continue
        by = "" if change is None else f" ({signed_percent(change)})"
        parts.append(f"{display_name(name)} {short(old)} → {short(new)}{by}")
    return [*sentences, f"On test it gives, against the plain model: {'; '.join(parts)}."]


def bound_text(bound: Any) -> str:
    """A bound of a sweep, such as ``NDCG@10 ≥ 0.0643``."""
    if isinstance(bound, Mapping):
        sign = {">=": "≥", "<=": "≤"}.get(bound["sign"], bound["sign"])
        return f"{display_name(str(bound['metric']))} {sign} {short(bound['bound'])}"
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
            f"{joined(means)}.",
        ]
    counts = dossier["neurons"]
    sentences = [
        f"{short(counts['alive'])} of {short(counts['count'])} neurons fire at all; {short(counts['above_1'])} "
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
            f"Steering moves users {moved} users of {row['to']} items: Wasserstein distance "
            f"{short(row['real'])} → {short(row['steered'])} (permutation test, p {_p(row['p_value'])})."
        )
    return sentences


def _p(value: float) -> str:
    return f"= {value:.3f}" if value >= 0.001 else f"= {value:.1g}"


def _count(number: int, one: str, many: str) -> str:
    return f"{short(number)} {one if number == 1 else many}"


def signed(value: float | None) -> str:
    """A difference for people, with its sign."""
    if value is None or value != value:
        return "–"
    size = abs(value)
    return f"{'+' if value >= 0 else '-'}{f'{size:.4f}' if size < 1 else short(size)}"


def direction(metric: str) -> str:
    """A sign for which way a metric is better."""
    if best_at_zero(metric):
        return "→ 0"
    return "↓" if smaller_is_better(metric) else "↑"


def joined(words: Sequence[str]) -> str:
    """Words joined as in a sentence."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"
