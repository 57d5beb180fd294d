from __future__ import annotations

import io
import json
import logging

import pytest
import structlog

from modelport.core.observe.logs import configure, request_id


@pytest.fixture
def stream():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield io.StringIO()
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def test_lines_are_json_where_nobody_looks(stream):
    configure("info", "auto", stream)
    structlog.get_logger().info("loaded", model="m")
    line = json.loads(stream.getvalue())
    assert (line["event"], line["model"], line["level"]) == ("loaded", "m", "info")
    assert "request_id" not in line


def test_every_line_of_a_request_carries_its_id(stream):
    configure("info", "json", stream)
    token = request_id.set("req-7")
    try:
        structlog.get_logger().info("ours")
        logging.getLogger("library").warning("theirs %s", 1)
    finally:
        request_id.reset(token)
    ours, theirs = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert ours["request_id"] == theirs["request_id"] == "req-7"
    assert theirs["event"] == "theirs 1"


def test_the_level_is_kept(stream):
    configure("warning", "json", stream)
    structlog.get_logger().info("quiet")
    logging.getLogger("library").info("quiet")
    assert stream.getvalue() == ""


def test_pretty_lines_are_for_people(stream):
    configure("debug", "pretty", stream)
    structlog.get_logger().debug("loaded", model="m")
    assert "loaded" in stream.getvalue()
    assert not stream.getvalue().startswith("{")
