"""Health, readiness and metrics."""

from spherequant import __version__

STAGES = ("decode", "embed", "scan", "fetch", "write", "look up keys")


def test_health_and_readiness(client, shared):
    assert client.get("/health").json() == {"status": "ok", "version": __version__}
    told = client.get("/ready").json()
    assert told["items"] == 200
    assert told["fingerprint"] == shared.engine.header.fingerprint
    assert told["takes_images"]


def test_metrics_have_a_histogram_of_each_stage(serving, folder, png, eventually):
    served = serving(folder)
    with served.client() as client:
        files = {"image": ("x", png())}
        for _ in range(3):
            client.post("/v1/search", files=files)
        client.put("/v1/items", params={"key": "a"}, files=files)
        client.post("/v1/search", json={"key": "a"})
        client.get("/secret/path")
        eventually(
            lambda: (
                served.metric(
                    "spherequant_requests_total", route="other", method="GET", status="404"
                )
                == 1
            )
        )
        text = client.get("/metrics").text
    for stage in STAGES:
        assert served.metric("spherequant_stage_seconds_count", stage=stage) > 0, stage
        assert f'spherequant_stage_seconds_bucket{{le="0.001",stage="{stage}"}}' in text
    assert served.metric("spherequant_stage_seconds_count", stage="embed") == 4
    searches = {"route": "/v1/search", "method": "POST", "status": "200"}
    assert served.metric("spherequant_requests_total", **searches) == 4
    assert served.metric("spherequant_written_total", kind="put") == 1
    assert served.metric("spherequant_items") == 201
    assert "process_resident_memory_bytes" in text
    assert "secret" not in text
