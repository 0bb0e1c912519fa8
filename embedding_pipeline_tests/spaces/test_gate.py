"""The gate: good models pass, broken ones do not, and the report says why."""

from pathlib import Path

import numpy as np
import pytest

from embedding_pipeline.embedders.fake import fake_vectors
from embedding_pipeline.errors import DataError
from embedding_pipeline.records import Vectors
from embedding_pipeline.spaces.config import GateConfig
from embedding_pipeline.spaces.gate import GateReport, Rows, Sample, from_tree, judge

CHUNKS, TOPICS = 600, 60


def unit(vectors: np.ndarray) -> Vectors:
    shaped: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return shaped


def meaning(seed: int = 0) -> np.ndarray:
    """What the texts mean: some topics, and each text's own part; 32 numbers a text."""
    random = np.random.default_rng(seed)
    topics = random.standard_normal((TOPICS, 32))
    return topics[np.arange(CHUNKS) % TOPICS] + 0.8 * random.standard_normal((CHUNKS, 32))


def model(seed: int, dimensions: int, noise: float = 0.03) -> Vectors:
    """A model: it sees the meaning from its own side, and not quite sharply."""
    random = np.random.default_rng(seed)
    seen = meaning() @ random.standard_normal((32, dimensions)) / np.sqrt(dimensions)
    return unit(unit(seen) + noise * random.standard_normal((CHUNKS, dimensions)))


OLD, NEW = model(1, 256), model(2, 384)


def sample(new: Vectors, old: Vectors | None = OLD, documents: Rows | None = None) -> Sample:
    rows = np.arange(len(new))
    return Sample(old, new, rows, rows if documents is None else documents)


def refused(report: GateReport) -> set[str]:
    assert not report.passed
    return {figure.name for figure in report.figures if not figure.passed}


def some(share: float) -> np.ndarray:
    chosen: np.ndarray = np.random.default_rng(5).random(CHUNKS) < share
    return chosen


def test_another_good_model_passes() -> None:
    report = judge(sample(NEW), GateConfig())
    assert report.passed, report.reasons
    assert sum(report.overlaps) == CHUNKS
    assert {figure.name for figure in report.figures} >= {"overlap", "close_pairs", "isolated"}


@pytest.mark.parametrize("share", [0.2, 0.5, 1.0])
def test_random_vectors_are_refused(share: float) -> None:
    broken = NEW.copy()
    broken[some(share)] = unit(
        np.random.default_rng(6).standard_normal((int(some(share).sum()), NEW.shape[1]))
    )
    assert "isolated" in refused(judge(sample(broken), GateConfig()))


def test_vectors_of_other_texts_are_refused() -> None:
    """Half of them mixed up: all statistics of the space itself are as before."""
    mixed, chosen = NEW.copy(), np.flatnonzero(some(0.5))
    mixed[chosen] = mixed[np.random.default_rng(7).permutation(chosen)]
    assert refused(judge(sample(mixed), GateConfig())) & {"overlap", "close_pairs"}


def test_half_the_recall_is_refused() -> None:
    """By a document's other chunks, where there are such: half as often the nearest."""
    documents = np.arange(CHUNKS) % TOPICS
    blurred = model(2, 384, noise=0.12)
    both = [judge(sample(it, OLD, documents), GateConfig()) for it in (NEW, blurred)]
    recall = [
        next(figure.new for figure in report.figures if figure.name == "document_neighbours")
        for report in both
    ]
    assert both[0].passed, both[0].reasons
    assert recall[1] < 0.6 * recall[0]
    assert "document_neighbours" in refused(both[1])


def blurred(vectors: Vectors, amount: float = 0.6) -> Vectors:
    """Each vector with some of another text's in it: evenly, and all statistics as before."""
    others = np.random.default_rng(8).permutation(len(vectors))
    return unit(vectors + amount * unit(vectors - vectors.mean(axis=0))[others])


def test_half_the_recall_is_refused_where_documents_are_one_chunk() -> None:
    """Its closest pairs are pairs of its own making."""
    assert "new_pairs" in refused(judge(sample(blurred(NEW)), GateConfig()))


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_vectors_without_direction_are_refused(value: float) -> None:
    broken = NEW.copy()
    broken[3] = value
    assert "bad_norms" in refused(judge(sample(broken), GateConfig()))


def test_one_vector_for_many_texts_is_refused_and_for_equal_texts_is_not() -> None:
    same = NEW.copy()
    same[:40] = same[0]
    assert {"duplicate_vectors", "self_retrieval"} <= refused(judge(sample(same), GateConfig()))
    texts = np.arange(CHUNKS)
    texts[:40] = 0
    report = judge(Sample(None, same, texts, np.arange(CHUNKS)), GateConfig())
    assert report.passed, report.reasons


def test_an_old_space_of_noise_asks_for_nothing() -> None:
    texts = [f"text {n}" for n in range(CHUNKS)]
    old, new = fake_vectors("a", texts, 256), fake_vectors("b", texts, 384)
    assert judge(sample(new, old), GateConfig()).passed
    assert not judge(sample(new, OLD), GateConfig()).passed


@pytest.mark.parametrize("size", [0, 1, 5, 11])
def test_a_few_chunks_can_be_judged_too(size: int) -> None:
    assert judge(sample(NEW[:size], OLD[:size]), GateConfig()).chunks == size


def test_the_report_is_plain_and_comes_back() -> None:
    report = judge(sample(NEW), GateConfig(min_overlap=1.0), old="a", new="b")
    assert from_tree(report.as_tree()) == report
    assert "overlap is 0." in report.reasons[0]


def test_rows_that_do_not_belong_together_are_no_sample() -> None:
    with pytest.raises(DataError, match="rows of different number"):
        sample(NEW[:10])


def test_real_models_pass_each_other_and_spoilt_ones_do_not(shared_data: Path) -> None:
    import pyarrow.parquet as pq

    table = pq.read_table(shared_data / "openai_vectors.parquet").to_pandas()
    table = table[table["set"] == "peliculas"]
    models = {}
    for name, rows in table.groupby("model"):
        full = rows[rows["vector"].map(len) == rows["vector"].map(len).max()]
        ordered = full.drop_duplicates("text").sort_values("text")
        models[name] = unit(np.vstack(ordered["vector"].tolist()))
    assert len(models) == 3
    for old, before in models.items():
        for new in models.keys() - {old}:
            vectors = models[new]
            random = np.random.default_rng(1)
            report = judge(sample(vectors, before), GateConfig())
            assert report.passed, (old, new, report.reasons)
            chosen = random.random(len(vectors)) < 0.2
            spoilt = vectors.copy()
            spoilt[chosen] = unit(random.standard_normal((int(chosen.sum()), vectors.shape[1])))
            assert not judge(sample(spoilt, before), GateConfig()).passed, (old, new)
            assert "new_pairs" in refused(judge(sample(blurred(vectors), before), GateConfig()))
