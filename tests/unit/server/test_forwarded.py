from __future__ import annotations

import pytest

from modelport.contract import ConfigurationError
from modelport.core.server.forwarded import Proxies

HEADERS = [(b"host", b"h"), (b"x-forwarded-for", b"6.6.6.6, 1.2.3.4, 10.0.0.9"), (b"x-forwarded-proto", b"https")]


def test_a_strangers_forwarding_headers_are_removed():
    client, scheme, headers = Proxies(["10.0.0.0/8"]).resolve("8.8.8.8", "http", HEADERS)
    assert (client, scheme, headers) == ("8.8.8.8", "http", [(b"host", b"h")])


def test_the_client_is_the_last_address_that_is_no_proxy():
    client, scheme, headers = Proxies(["10.0.0.0/8"]).resolve("10.0.0.1", "http", HEADERS)
    assert (client, scheme) == ("1.2.3.4", "https")
    assert headers == HEADERS


def test_without_proxies_nobody_is_believed():
    assert Proxies([]).resolve("127.0.0.1", "http", HEADERS)[0] == "127.0.0.1"


def test_websocket_schemes_stay_websocket_schemes():
    assert Proxies(["10.0.0.1"]).resolve("10.0.0.1", "ws", HEADERS)[1] == "wss"


def test_a_wrong_network_is_named():
    with pytest.raises(ConfigurationError, match=r"server\.trusted_proxies: 'proxy'"):
        Proxies(["proxy"])
