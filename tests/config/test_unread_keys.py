"""Keys that nobody reads are named."""

from __future__ import annotations

from recbole_fair.config.fair_config import FairConfig


def test_a_key_of_another_model_is_named(caplog):
    FairConfig("BPR", "ml-100k", config_dict={"alpha_pop": 3.0, "mask_seen": "none"})
    assert [record.getMessage() for record in caplog.records] == ["alpha_pop=3.0 has no effect: BPR does not read it."]
    caplog.clear()
    FairConfig("PopSteerSASRec", "ml-100k", config_dict={"alpha_pop": 3.0, "window_stride": 5})
    assert not caplog.records


def test_a_key_of_recbole_that_no_class_of_the_model_reads_is_named(caplog):
    FairConfig("BPR", "ml-100k", config_dict={"n_heads": 2, "embedding_size": 8, "require_pow": True})
    assert [record.getMessage() for record in caplog.records] == ["n_heads=2 has no effect: BPR does not read it."]
    caplog.clear()
    # Read by the class, by the transform of batches, by the base: none of them stands in the model's own yaml file.
    FairConfig("AutoInt", "ml-100k", config_dict={"has_residual": True})
    FairConfig("GRU4Rec", "ml-100k", config_dict={"mask_ratio": 0.2, "transform": "mask_itemseq"})
    FairConfig("PopSteerSASRec", "ml-100k", config_dict={"n_heads": 2})
    assert not caplog.records


def test_several_keys_are_one_line(caplog):
    FairConfig("BPR", "ml-100k", config_dict={"n_heads": 2, "embedding_size": 8, "alpha_pop": 3.0})
    assert [record.getMessage() for record in caplog.records] == [
        "n_heads=2, alpha_pop=3.0 have no effect: BPR reads none of them."
    ]
