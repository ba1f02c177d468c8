"""``spherequant bench``."""

from spherequant.index import comparison


def test_every_engine_has_a_row(spherequant_json):
    value = spherequant_json(
        "bench", "--items", "2000", "--bits", "16", "--repetitions", "1", "-k", "5"
    )
    assert value["items"] == 2000
    names = [row["engine"] for row in value["rows"]]
    assert names[:2] == ["spherequant", "spherequant, buckets"]
    assert ("FAISS PQ" in names) == comparison.installed("faiss")
    assert all(row["batch_1"] > 0 and row["ratio_64"] > 0 for row in value["rows"])
    assert value["rows"][0]["ratio_1"] == 1


def test_the_table(spherequant, monkeypatch):
    monkeypatch.setattr(comparison, "installed", lambda module: False)
    done = spherequant(
        "bench", "--items", "300", "--bits", "8", "--bits", "32", "--repetitions", "1"
    )
    assert "300 codes, top 100, one thread" in done.stdout
    assert done.stdout.count("spherequant, buckets") == 2
    assert "FAISS is not installed" in done.stderr
