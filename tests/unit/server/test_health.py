from __future__ import annotations

import pytest


@pytest.mark.parametrize("state", ["loading", "failed", "draining"])
async def test_readiness_says_why_not(connect, state):
    async with connect(key=None, state=state) as client:
        response = await client.get("/health/ready")
        assert response.status_code == 503
        assert response.json() == {"status": state}
        assert (await client.get("/health/live")).status_code == 200


async def test_readiness_is_200_when_preloads_are_done(connect):
    async with connect(key=None) as client:
        assert (await client.get("/health/ready")).json() == {"status": "ready"}


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [("", "text/plain; version=0.0.4"), ("application/openmetrics-text; version=1.0.0", "application/openmetrics-text")],
)
async def test_metrics_come_in_the_form_that_is_asked_for(connect, accept, content_type):
    async with connect() as client:
        for path in ("/metrics", "/v1/metrics"):
            response = await client.get(path, headers={"accept": accept})
            assert response.status_code == 200
            assert response.headers["content-type"].startswith(content_type)
            assert "# TYPE modelport_http_requests" in response.text
