"""Media by address: found wherever a request holds them, fetched from allowed hosts alone, and within bounds."""

from __future__ import annotations

import asyncio
import ipaddress
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from modelport.contract import Cancelled, ConfigurationError, DeadlineExceeded, InvalidRequest, Media, PayloadTooLarge
from modelport.core.config.load import load
from modelport.core.config.settings import MediaSettings
from modelport.core.serving.departure import attended
from modelport.core.serving.fetcher import Fetcher
from modelport.core.serving.public import is_public
from modelport.core.serving.references import filled, references
from modelport.tasks.text import GenerationRequest, Message
from modelport.tasks.vision import ImageClassificationRequest, VideoClassificationRequest

PICTURE = b"\x89PNG a picture"


class Pictures(BaseHTTPRequestHandler):
    """A site with a picture, a large one, redirects, and a page that never comes."""

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers["host"]))  # type: ignore[attr-defined]
        if self.path == "/never":
            self.server.leave.wait()  # type: ignore[attr-defined]
            return
        place = {
            "/moved": "/cat.png",
            "/away": "http://elsewhere.test/cat.png",
            "/round": "/round",
            "/ftp": "ftp://bare.test/x",
        }.get(self.path)
        if place is not None or self.path == "/nowhere":
            self.send_response(302)
            if place is not None:
                self.send_header("location", place)
            self.send_header("content-length", "0")
            self.end_headers()
            return
        body = {"/cat.png": PICTURE, "/large": b"x" * 50_000}.get(self.path)
        self.send_response(200 if body else 404)
        self.send_header("content-type", "image/png; charset=binary")
        self.send_header("content-length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *args: Any) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def site() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pictures)
    server.asked, server.leave = [], threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.leave.set()  # type: ignore[attr-defined]
    server.shutdown()
    thread.join()
    server.server_close()


async def here(host: str, port: int) -> Sequence[str]:
    """Every name is this machine."""
    return ["127.0.0.1"]


def fetcher(site: ThreadingHTTPServer, *, most: int = 1000, resolve: Any = here, **settings: Any) -> Fetcher:
    port = site.server_address[1]
    hosts = [f"pictures.test:{port}", f"*.deep.test:{port}", "bare.test"]
    options = MediaSettings(**{"allowed_hosts": hosts, "allowed_networks": ["127.0.0.0/8"], "timeout_s": 10.0, **settings})
    return Fetcher(options, most, resolve=resolve)


async def fetched(fetcher: Fetcher, request: Any) -> Any:
    wanted = fetcher.wanted(request)
    return await fetcher.fetched(request, wanted) if wanted else request


def fetch(site: ThreadingHTTPServer, request: Any, **settings: Any) -> Any:
    async def scenario() -> Any:
        return await fetched(fetcher(site, **settings), request)

    return asyncio.run(scenario())


def image(site: ThreadingHTTPServer, path: str = "/cat.png", host: str = "pictures.test", scheme: str = "http") -> Any:
    return ImageClassificationRequest(inputs=Media(url=f"{scheme}://{host}:{site.server_address[1]}{path}"), top_k=3)


def test_an_address_becomes_bytes_and_the_rest_stays(site: Any) -> None:
    found = fetch(site, image(site))

    assert found == ImageClassificationRequest(inputs=Media(data=PICTURE, mime="image/png"), top_k=3)
    assert site.asked[-1] == ("/cat.png", f"pictures.test:{site.server_address[1]}")


def test_all_media_of_a_request_are_fetched_wherever_they_are(site: Any) -> None:
    url = f"http://a.deep.test:{site.server_address[1]}/cat.png"
    video = fetch(site, VideoClassificationRequest(inputs=[Media(url=url), Media(data=b"own"), Media(url=url)]))
    assert [media.data for media in video.inputs] == [PICTURE, b"own", PICTURE]

    parts = [
        {"type": "text", "text": url, "url": url},
        {"type": "image_url", "image_url": {"url": url, "detail": "low"}},
        {"type": "image", "url": url},
        {"type": "image", "image": Media(url=url)},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
    ]
    chat = fetch(site, GenerationRequest(messages=[Message(role="user", content=parts), Message(role="user", content=url)]))
    fetched = Media(data=PICTURE, mime="image/png")
    content = chat.messages[0].content
    assert content[0] == parts[0], "an address in a text is a text"
    assert content[1] == {"type": "image_url", "image_url": fetched}
    assert content[2] == {"type": "image", "url": fetched}
    assert content[3] == {"type": "image", "image": fetched}
    assert content[4] == parts[4]
    assert chat.messages[1].content == url
    assert parts[1]["image_url"]["url"] == url, "the caller's request is not written to"  # type: ignore[index]


@pytest.mark.parametrize(
    "url",
    ["http://elsewhere.test/cat.png", "http://pictures.test/other-port", "https://deep.test/x", "ftp://pictures.test/x",
     "http://[", "http://xn--.test/x", "http://pictures.test.evil.test/x", "file:///etc/passwd", "data:,hi"],
)  # fmt: skip
def test_other_addresses_are_left_to_who_refuses_them(site: Any, url: str) -> None:
    request = ImageClassificationRequest(inputs=Media(url=url))
    assert fetch(site, request) is request


def test_nothing_is_fetched_by_default_or_offline(site: Any) -> None:
    request = image(site)
    assert fetch(site, request, allowed_hosts=[]) is request

    async def offline() -> Any:
        allowed = MediaSettings(allowed_hosts=[f"pictures.test:{site.server_address[1]}"])
        return await fetched(Fetcher(allowed, 1000, offline=True, resolve=here), request)

    assert asyncio.run(offline()) is request


@pytest.mark.parametrize(
    ("path", "settings", "message"),
    [
        ("/cat.png", {"allowed_networks": []}, "its host has no public address"),
        ("/nothing", {}, "its host answered 404"),
        ("/away", {}, "redirected to elsewhere.test, which is not allowed"),
        ("/ftp", {}, "redirected to bare.test, which is not allowed"),
        ("/round", {}, "redirected more than 3 times"),
        ("/nowhere", {}, "its host answered 302"),
        ("/never", {"timeout_s": 0.2}, r"did not send it within 0\.2 s"),
    ],
)
def test_what_an_allowed_host_does_not_give_is_refused_by_field(site: Any, path: str, settings: Any, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message) as refused:
        fetch(site, image(site, path), **settings)
    assert refused.value.param == "inputs.url"


def test_a_redirect_to_an_allowed_host_is_followed(site: Any) -> None:
    assert fetch(site, image(site, "/moved")).inputs.data == PICTURE


def test_bytes_of_all_media_together_are_bounded(site: Any) -> None:
    with pytest.raises(PayloadTooLarge, match="1,000 bytes"):
        fetch(site, image(site, "/large"))
    url = f"http://pictures.test:{site.server_address[1]}/cat.png"
    with pytest.raises(PayloadTooLarge):
        fetch(site, VideoClassificationRequest(inputs=[Media(url=url)] * 3), most=2 * len(PICTURE))


def test_a_name_that_is_none_is_refused_by_field(site: Any) -> None:
    request = image(site, host=f"{'a' * 70}.deep.test")
    with pytest.raises(InvalidRequest, match="label empty or too long") as refused:
        fetch(site, request, resolve=None)
    assert refused.value.param == "inputs.url"


def test_an_address_is_asked_once_and_no_more_than_256_are(site: Any) -> None:
    url = f"http://pictures.test:{site.server_address[1]}/cat.png"
    before = len(site.asked)
    video = fetch(site, VideoClassificationRequest(inputs=[Media(url=url)] * 300), most=300 * len(PICTURE))
    assert {media.data for media in video.inputs} == {PICTURE}
    assert len(video.inputs) == 300
    assert len(site.asked) == before + 1

    with pytest.raises(InvalidRequest, match="at most 256") as refused:
        fetch(site, VideoClassificationRequest(inputs=[Media(url=f"{url}?{place}") for place in range(300)]))
    assert refused.value.param == "inputs.256.url"
    assert len(site.asked) == before + 1


async def test_a_deadline_ends_a_fetch(site: Any) -> None:
    request = image(site, "/never")
    fetching = fetched(fetcher(site), request)
    with pytest.raises(DeadlineExceeded, match="its media were being fetched"):
        await attended(fetching, None, 0.2, "its media were being fetched")


async def test_a_fetch_ends_when_the_client_leaves(site: Any) -> None:
    async def left() -> dict[str, str]:
        return {"type": "http.disconnect"}

    fetching = fetched(fetcher(site), image(site, "/never"))
    with pytest.raises(Cancelled):
        await attended(fetching, {"modelport.receive": left}, None, "its media were being fetched")


NOT_PUBLIC = (
    "10.0.0.1 127.0.0.1 169.254.169.254 192.168.1.1 0.0.0.0 100.64.0.1 224.0.0.1 ::1 :: fe80::1 fd00::1 ::ffff:10.0.0.1"
    " 64:ff9b::a9fe:a9fe 64:ff9b:1::a9fe:a9fe 2002:a9fe:a9fe:: ::a9fe:a9fe fec0::1 ff02::1 fe80::1%eth0"
)


@pytest.mark.parametrize("address", NOT_PUBLIC.split())
def test_addresses_that_are_not_public_are_never_asked(site: Any, address: str) -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return [address]

    with pytest.raises(InvalidRequest, match="no public address"):
        fetch(site, image(site), resolve=resolve, allowed_networks=[])


@pytest.mark.parametrize(
    ("address", "also", "good"),
    [
        ("8.8.8.8", "", True),
        ("2606:4700::1111", "", True),
        ("64:ff9b::808:808", "", True),
        ("2002:808:808::", "", True),
        ("::1", "::1/128", True),
        ("fec0::1", "fec0::/10", True),
        ("::ffff:10.0.0.1", "10.0.0.0/8", True),
        ("64:ff9b::a00:1", "10.0.0.0/8", True),
        ("64:ff9b::a00:1", "64:ff9b::/96", False),
        ("10.0.0.1", "192.168.0.0/16", False),
    ],
)
def test_gateways_lead_nowhere_that_is_not_allowed(address: str, also: str, good: bool) -> None:
    assert is_public(ipaddress.ip_address(address), [ipaddress.ip_network(also)] if also else []) is good


def test_a_request_without_addresses_is_the_same_object() -> None:
    request = GenerationRequest(messages=[Message(role="user", content=[{"type": "text", "text": "http://x.test"}])])
    assert references(request) == {}
    assert filled(request, {}) is request


def test_faults_of_the_configuration_are_named() -> None:
    flags = {"media": {"allowed_hosts": ["http://x.test/"], "allowed_networks": ["here"]}}
    with pytest.raises(ConfigurationError, match="is not a host") as refused:
        load(None, {}, flags)
    assert "media.allowed_networks[0]" in str(refused.value)
