"""Each part in miniature, over a real service; and that what is wrong ends with exit code 1."""

from __future__ import annotations

import json
import sys

import pytest

import service_endurance
from service_endurance import Found, parse
from serving import Answer, Connection, jpeg
from spherequant.training import TrainConfig, train


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for number in range(24):
        path = folder / f"class {number % 2}" / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(jpeg(number, 32))
    return train(str(folder), TrainConfig(bits=16, epochs=1, dim=8, image_size=16))


def cells(found, caption):
    (rows,) = (table["rows"] for table in found.tables if table["caption"] == caption)
    return {row[0]: row[1:] for row in rows}


def test_puts(model, tmp_path):
    options = parse(["--puts", "40", "--connections", "4", "--image-share", "0.2"])
    found = service_endurance.puts(model, tmp_path / "index", options)
    assert not found.wrong
    speed, left = cells(found, "Writing"), cells(found, "What is left")
    assert list(speed) == [10, 20, 30, 40]
    assert list(left) == ["10", "20", "30", "40", "40, when the service has ended"]
    for files, data, versions, size, seconds in left.values():
        assert files > data > 0
        assert versions > 0
        assert size > 0
        assert seconds > 0


def test_memory(model, tmp_path):
    options = parse(["--memory-seconds", "3", "--items", "30", "--connections", "3"])
    found = service_endurance.memory(model, tmp_path / "index", options)
    assert not found.wrong
    memory = cells(found, "Resident memory of the server")
    assert memory["highest"][0] >= memory["median of the last tenth"][0] > 10
    answers = cells(found, "Answers by kind of request")
    assert sum(good for good, *_ in answers.values()) > 0
    assert all(failed == 0 for *_, failed in answers.values())


def test_kills(model, tmp_path):
    options = parse(["--kills", "1", "--most-seconds", "1.5", "--known", "30", "--writers", "3"])
    found = service_endurance.kills(model, tmp_path / "index", options)
    assert not found.wrong
    told = cells(found, "After the kills")
    assert told["comparisons of the whole index"] == [1]
    assert told["seconds until ready again, most"][0] > 0


def test_mixed(model, tmp_path):
    options = parse(["--mixed-seconds", "2", "--known", "30", "--writers", "2", "--readers", "1"])
    found = service_endurance.mixed(model, tmp_path / "index", options)
    assert not found.wrong
    compared = cells(found, "Compared with the model")
    assert compared["whole index"] == [1]
    assert compared["search"][0] > 0
    assert compared["item"][0] > 0


def test_a_wrong_answer_of_the_service_is_found(model, tmp_path, monkeypatch):
    """One search in ten is answered with its second result left out."""
    asked, searches = Connection.ask, 0

    async def spoilt(connection, sent):
        nonlocal searches
        answer = await asked(connection, sent)
        if sent.startswith(b"POST /v1/search?k=10&offset=0 ") and answer.status == 200:
            searches += 1
            document = answer.json()
            if searches % 10 == 0:
                del document["results"][1]
                return Answer(200, json.dumps(document).encode())
        return answer

    monkeypatch.setattr(Connection, "ask", spoilt)
    options = parse(["--mixed-seconds", "60", "--known", "30", "--writers", "2", "--readers", "0"])
    options.round_seconds = 5.0
    found = service_endurance.mixed(model, tmp_path / "index", options)
    assert found.wrong
    assert "rank" in found.wrong[0]


def test_what_is_wrong_ends_with_exit_code_1(monkeypatch, capsys):
    stub = Found("Title", "Notes.", [], ["this is so"])
    monkeypatch.setattr(service_endurance, "PARTS", {"mixed": lambda *_: stub})
    monkeypatch.setattr(service_endurance, "small_model", lambda: None)
    monkeypatch.setattr(sys, "argv", ["service_endurance.py", "--unrecorded"])
    with pytest.raises(SystemExit, match="wrong: 1"):
        service_endurance.main()
    assert "WRONG: this is so" in capsys.readouterr().err
