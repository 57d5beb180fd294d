"""Run with `pytest`, once the plugin is installed (`pip install -e . --group test`)."""

from modelport_api_echo import Echo

from modelport.testing.api import ApiCall, ApiSuite


class TestEcho(ApiSuite):
    """What modelport relies on: the same tests that its own surfaces pass."""

    def api(self) -> Echo:
        return Echo()

    def calls(self) -> list[ApiCall]:
        return [ApiCall("/echo", {"model": "org/chat", "text": "hi"})]
