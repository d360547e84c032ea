"""Searches: chosen on validation alone, resumed exactly, shared by processes, written so that a run takes them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytest.importorskip("optuna")

from other_labels import LAST_OF_EACH, write_with_other_labels

from recbole_fair.errors import FairError
from recbole_fair.quick_start import evaluate_checkpoint, run_recbole_fair
from recbole_fair.runs.search import Objective, Search, make_pruner, open_study, run_search
from recbole_fair.runs.spaces import Choice, Numbers
from recbole_fair.runs.tune import tune

SETTINGS = {
    "epochs": 2, "embedding_size": 8, "topk": [5], "state": "error", "show_progress": False, "metrics": ["NDCG"],
    "valid_metric": "NDCG@5", "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
}  # fmt: skip
STEERED = {
    **SETTINGS, "sae_epochs": 3, "sae_scale": 4, "sae_k": 4, "sae_batch_size": 32, "profile_share": 0.3,
    "head_share": 0.2, "tail_share": 0.2,
}  # fmt: skip


@pytest.fixture
def given(small_data: Path, in_tmp: Path) -> dict:
    return {**SETTINGS, "data_path": str(small_data)}


class Parabola:
    """Trials whose metrics follow from their settings: accuracy is best at 3, cost grows with x."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.left, self.tried = stop_after, []
        self.base = {"ndcg@5": 0.0, "cost@5": 10.0}

    def measure(self, settings, report):
        if self.left is not None:
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
        self.tried.append(settings)
        x = settings["x"]
        if settings.get("kind") == "broken":
            raise FairError("this kind is broken.")
        return {"ndcg@5": 9 - (x - 3) ** 2, "cost@5": x}, None


SPACE = {"x": Numbers(0.0, 10.0), "kind": Choice(("plain", "fancy"))}


def search(path: Path, objective: Objective | None = None, name: str = "s", space: dict | None = None) -> Search:
    objective = objective or Objective.of([], ["NDCG@5"], [], "NDCG@5")
    return Search(
        objective, space or SPACE, open_study(str(path / "journal.log"), name, objective, make_pruner("none", 1, 0))
    )


@pytest.mark.parametrize("sampler", ["tpe", "gp", "random"])
def test_a_search_finds_what_is_best(tmp_path: Path, sampler: str):
    made = search(tmp_path)
    made.start_with({"x": 9.0, "kind": "plain"})
    run_search(made, Parabola(), 30 if sampler != "gp" else 16, sampler, seed=4)
    assert made.trials[0].settings == {"x": 9.0, "kind": "plain"}  # the defaults first
    (best,) = made.best()
    assert best.metrics == max((t.metrics for t in made.trials), key=lambda m: m["ndcg@5"])
    assert abs(best.settings["x"] - 3) < 0.7


def test_bounds_are_kept(tmp_path: Path):
    objective = Objective.of(["cost@5"], [], ["NDCG@5 >= 5"], "NDCG@5")
    made = search(tmp_path, objective)
    run_search(made, Parabola(), 40, "tpe", seed=1)
    (best,) = made.best()
    assert best.metrics["ndcg@5"] >= 5
    feasible = [t for t in made.trials if t.metrics["ndcg@5"] >= 5]
    assert best.metrics["cost@5"] == min(t.metrics["cost@5"] for t in feasible)
    assert best.metrics["cost@5"] >= 1  # at x = 1 the bound is met exactly


def test_where_nothing_keeps_the_bounds_the_nearest_is_taken(tmp_path: Path):
    made = search(tmp_path, Objective.of(["cost@5"], [], ["NDCG@5 >= 100"], "NDCG@5"))
    run_search(made, Parabola(), 12, "random", seed=1)
    (best,) = made.best()
    assert best.violation > 0
    assert best.metrics["ndcg@5"] == max(t.metrics["ndcg@5"] for t in made.trials)


def test_two_objectives_give_the_front(tmp_path: Path):
    made = search(tmp_path, Objective.of(["cost@5"], ["NDCG@5"], [], "NDCG@5"))
    run_search(made, Parabola(), 25, "tpe", seed=2)
    points = [(t.metrics["cost@5"], t.metrics["ndcg@5"]) for t in made.trials]
    front = {(c, n) for c, n in points if not any(a <= c and b >= n and (a, b) != (c, n) for a, b in points)}
    assert {(t.metrics["cost@5"], t.metrics["ndcg@5"]) for t in made.best()} == front


def test_a_crashed_trial_is_recorded_and_passed_over(tmp_path: Path):
    made = search(tmp_path, space={"x": Numbers(0.0, 10.0), "kind": Choice(("plain", "broken"))})
    run_search(made, Parabola(), 14, "random", seed=3)
    failed = [t for t in made.trials if t.state == "failed"]
    assert len(made.trials) == 14
    assert failed
    assert {t.reason for t in failed} == {"this kind is broken."}
    assert made.best()[0].settings["kind"] == "plain"


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_search_that_was_killed_ten_times_gives_the_trials_of_one_that_was_not(tmp_path: Path, sampler: str):
    whole = search(tmp_path, name="whole")
    whole.start_with({"x": 9.0, "kind": "plain"})
    run_search(whole, Parabola(), 33, sampler, seed=5)
    killed = search(tmp_path, name="killed")
    killed.start_with({"x": 9.0, "kind": "plain"})
    for stop in (0, *[3] * 9):
        with pytest.raises(KeyboardInterrupt):
            run_search(killed, Parabola(stop), 33, sampler, seed=5)
        killed = search(tmp_path, name="killed")  # a new process knows the file alone
    run_search(killed, Parabola(), 33, sampler, seed=5)
    assert [t.settings for t in killed.trials] == [t.settings for t in whole.trials]
    assert [t.metrics for t in killed.trials] == [t.metrics for t in whole.trials]


def test_two_processes_on_one_journal_lose_no_trial(tmp_path: Path):
    code = (
        "import sys; from pathlib import Path; sys.path[:0] = sys.argv[2:]\n"
        "from test_tune import Parabola, run_search, search\n"
        "run_search(search(Path(sys.argv[1])), Parabola(), 200, 'random', seed=7)\n"
    )
    words = [sys.executable, "-c", code, str(tmp_path), *map(str, Path(__file__).parents[:2])]
    running = [subprocess.Popen(words, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in running:
        assert process.wait(timeout=300) == 0, process.stderr.read()
    trials = search(tmp_path).trials
    assert len(trials) == 200
    assert all(t.state == "complete" for t in trials)
    assert len({t.settings["x"] for t in trials}) >= len(trials) - 2  # both may draw the first one alike


def test_a_trial_that_another_process_has_just_asked_for_is_left_alone(tmp_path: Path):
    other = search(tmp_path)
    other.study.set_user_attr("at work: another-machine:1", True)
    asked = other.study.ask()  # not yet marked as the other's
    run_search(search(tmp_path), Parabola(), 4, "random", seed=1)
    assert not other.study.get_trials()[asked.number].state.is_finished()


def test_scoring_time_keys_are_searched_on_one_model(given: dict, small_data: Path):
    Path("space.yaml").write_text("alpha_pop: {low: 0.0, high: 4.0}\nalpha_unpop: {low: 0.0, high: 4.0}\n")
    settings = {**STEERED, "data_path": str(small_data)}
    words = {"space": "space.yaml", "trials": 8, "minimize": ["GiniIndex@5"], "subject_to": ["NDCG@5 >= 0.5*base"]}
    result = tune("PopSteerBPR", "small", output="found", config_dict=settings, **words)
    assert len(list(Path("found/checkpoints").glob("PopSteerBPR-*.pth"))) == 1
    (chosen,) = result["chosen"]
    strengths = {key: chosen[key] for key in ("alpha_pop", "alpha_unpop")}
    (file,) = Path("found/checkpoints").glob("PopSteerBPR-*.pth")
    again = evaluate_checkpoint(file, {**strengths, "metrics": ["NDCG", "GiniIndex"]})
    assert again["test_result"]["giniindex@5"] == chosen["test giniindex@5"]
    assert all(f"test {name}" not in row for row in result["trials"] for name in ("ndcg@5", "giniindex@5"))
    assert json.loads(Path("found/tune.json").read_text())["kind"] == "tuning"
    more = tune("PopSteerBPR", "small", output="found", config_dict=settings, **{**words, "trials": 10})
    assert more["resumed"] == 8
    assert [r["alpha_pop"] for r in more["trials"][:8]] == [r["alpha_pop"] for r in result["trials"]]


@pytest.mark.parametrize("space", ["alpha_pop: {low: 0.0, high: 4.0}\n", "reranker_alpha: {low: 0.0, high: 2.0}\n"])
def test_what_is_not_searched_is_the_same_when_a_search_goes_on(given: dict, small_data: Path, space: str):
    """A run chooses strengths; a search of strengths leaves the others as they are, one of lists takes the choice."""
    Path("space.yaml").write_text(space)
    settings = {**STEERED, "data_path": str(small_data)}
    if "reranker" in space:
        settings["reranker"] = "IPR"
    words = {"space": "space.yaml", "sampler": "random", "config_dict": settings}
    whole = tune("PopSteerBPR", "small", trials=4, output="whole", **words)
    tune("PopSteerBPR", "small", trials=2, output="parts", **words)
    parts = tune("PopSteerBPR", "small", trials=4, output="parts", **words)
    assert parts["resumed"] == 2
    assert parts["trials"] == whole["trials"]
    assert parts["chosen"] == whole["chosen"]
    # Another search finds the fitted model, which is not fitted again.
    words["config_dict"] = {**settings, "metrics": ["NDCG", "GiniIndex"]}
    where = {"output": "other", "checkpoints": "whole/checkpoints"}
    other = tune("PopSteerBPR", "small", trials=1, maximize=["GiniIndex@5"], **where, **words)
    assert len(list(Path("whole/checkpoints").glob("PopSteerBPR-*.pth"))) == 1
    assert sorted(path.name for path in Path("parts").glob("tune*.json")) == ["tune.json"]  # one search, one document
    before = Path("whole/chosen.yaml").read_text()
    tune("PopSteerBPR", "small", trials=1, maximize=["GiniIndex@5"], output="whole", **words)
    assert Path("whole/chosen.yaml").read_text() == before
    assert yaml.safe_load(Path("whole/chosen-2.yaml").read_text())["metrics"] == ["NDCG", "GiniIndex"]
    assert other["trials"][0]["valid ndcg@5"] == whole["trials"][0]["valid ndcg@5"]


def test_training_keys_and_a_run_of_what_was_chosen(given: dict):
    Path("model.hyper").write_text("embedding_size choice [4,8]\nlearning_rate loguniform -7,-4\n")
    del given["embedding_size"]
    result = tune("BPR", "small", space="model.hyper", trials=4, output="found", config_dict=given)
    (chosen,) = result["chosen"]
    found = yaml.safe_load(Path("found/chosen.yaml").read_text())
    run = run_recbole_fair(config_file_list=["found/chosen.yaml"], config_dict={"data_path": given["data_path"]})
    assert found["embedding_size"] == chosen["embedding_size"]
    assert run["best_valid_result"]["ndcg@5"] == pytest.approx(chosen["valid ndcg@5"], rel=1e-12)
    assert run["test_result"]["ndcg@5"] == pytest.approx(chosen["test ndcg@5"], rel=1e-12)
    assert Path("found/history.png").stat().st_size > 5000


def test_test_labels_change_no_choice(given: dict, tmp_path: Path, small_data: Path):
    """Every user's held-out test item is another one: the same trials, the same choice, other test values."""
    folders = write_with_other_labels(small_data, tmp_path)
    Path("space.yaml").write_text("learning_rate: {low: 0.001, high: 0.05, log: true}\n")
    results = []
    for folder in folders:
        settings = {**given, "eval_args": LAST_OF_EACH, "data_path": str(folder)}
        output = f"{folder.name}-found"
        results.append(tune("BPR", "small", space="space.yaml", trials=3, output=output, config_dict=settings))
    chosen = [result["chosen"][0] for result in results]
    assert chosen[0]["test ndcg@5"] != chosen[1]["test ndcg@5"]
    assert chosen[0]["trial"] == chosen[1]["trial"]
    assert [r["valid ndcg@5"] for r in results[0]["trials"]] == [r["valid ndcg@5"] for r in results[1]["trials"]]
    assert [r["learning_rate"] for r in results[0]["trials"]] == [r["learning_rate"] for r in results[1]["trials"]]


def test_trainings_that_fall_behind_are_ended(given: dict, monkeypatch: pytest.MonkeyPatch):
    from recbole_fair.trainer.trainer import FairTrainerMixin

    rates: list[float] = []

    def validate(self, *_: object, **__: object) -> tuple[float, dict[str, float]]:
        score = 0.1 if self.config["learning_rate"] < 0.001 else 0.5
        rates.append(self.config["learning_rate"])
        return score, {"ndcg@5": score}

    monkeypatch.setattr(FairTrainerMixin, "_valid_epoch", validate)
    Path("space.yaml").write_text("learning_rate: {low: 0.0001, high: 0.1, log: true}\n")
    settings = {**given, "epochs": 6, "stopping_step": 10}
    result = tune("BPR", "small", space="space.yaml", trials=14, warmup=1, sampler="random", config_dict=settings)
    pruned = [row for row in result["trials"] if row["state"] == "pruned"]
    assert pruned
    assert all(row["learning_rate"] < 0.001 for row in pruned)
    assert all(row["trial"] >= 5 for row in pruned)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"sampler": "tpee"}, "sampler='tpee' is not allowed"),
        ({"trials": 0}, "trials=0 is not allowed"),
        ({"minimize": ["Ginny@5"]}, "no metric named 'ginny'"),
        ({"minimize": ["NDCG@5"], "maximize": ["NDCG@5"]}, "name a metric twice"),
        ({"space": "none.yaml"}, "none.yaml"),
        ({"config_dict": {"learning_rate": 0.1}}, "learning_rate=0.1 has no effect"),
        ({"storage": "nonsense://x"}, "storage=nonsense://x cannot be used"),
    ],
)
def test_mistakes_are_a_sentence(given: dict, words: dict, says: str):
    Path("space.yaml").write_text("learning_rate: [0.01, 0.001]\n")
    words = {"space": "space.yaml", **words, "config_dict": {**given, **words.get("config_dict", {})}}
    with pytest.raises(FairError, match=says):
        tune("BPR", "small", **words)
