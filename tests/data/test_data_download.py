import gzip
import time

import pytest
import requests
from file_server import (
    QUOTA_PAGE,
    WARNING_PAGE,
    cut,
    page,
    serving,
    stalling,
    status,
    whole,
)

from haste.data.archives import NoRoomError
from haste.data.download import Patience, download
from haste.data.registry import Origin
from haste.errors import DataError

CONTENT = bytes(range(256)) * 4000
QUICK = Patience(timeout=0.3, attempts=3, pause=0.01, longest=2.0)


@pytest.fixture
def server():
    with serving() as server:
        yield server


@pytest.fixture
def get(server, tmp_path):
    """Downloads /data.zip from the server after it was told what to do."""

    def get(*steps, progress=None):
        server.script["/data.zip"] = list(steps)
        origin = Origin(via="https", url=f"{server.url}/data.zip", unpacked=1)
        download(origin, tmp_path, progress, QUICK)
        return (tmp_path / "data.zip").read_bytes()

    return get


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file(get, server, tmp_path):
    seen = []
    assert get(whole(CONTENT), progress=lambda *values: seen.append(values)) == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert names(tmp_path) == ["data.zip"]
    # one that came whole is not asked for again
    assert get(status(500)) == CONTENT
    assert len(server.asked) == 1


@pytest.mark.parametrize("fault", [cut, stalling])
def test_a_cut_download_goes_on_where_it_was(get, server, fault):
    assert get(fault(CONTENT, 300_000), whole(CONTENT)) == CONTENT
    (_, first, _), (_, second, condition) = server.asked
    assert (first, condition) == (None, '"1"')
    begin = int(second.removeprefix("bytes=").removesuffix("-"))
    assert 0 < begin <= 300_000


def test_it_goes_on_in_another_call_too(get, server, tmp_path):
    with pytest.raises(DataError, match=r"Run again later; it resumes from the \d{6} bytes"):
        get(cut(CONTENT, 300_000), status(503))
    assert names(tmp_path) == ["data.zip.part", "data.zip.part.tag"]
    assert get(whole(CONTENT)) == CONTENT
    assert server.ranges()[-1].startswith("bytes=")
    assert names(tmp_path) == ["data.zip"]


def test_a_file_that_has_changed_meanwhile_is_fetched_anew(get):
    newer = CONTENT[::-1]
    assert get(cut(CONTENT, 300_000), whole(newer, tag='"2"')) == newer


def test_a_server_that_knows_no_ranges_sends_all_again(get):
    def again(handler):
        handler.answer(200, CONTENT, ETag='"1"')

    assert get(cut(CONTENT, 300_000), again) == CONTENT


def other_range(handler):
    extent = f"bytes 5-{len(CONTENT) - 1}/{len(CONTENT)}"
    handler.answer(206, CONTENT[5:], ETag='"1"', Content_Range=extent)


def unknown_range(handler):
    handler.answer(206, CONTENT[5:], ETag='"1"', Content_Range="bytes 5-/*")


@pytest.mark.parametrize(
    "answer", [other_range, unknown_range, status(416)], ids=["another", "unknown", "none"]
)
def test_a_server_that_sends_another_range_is_asked_for_all(get, server, answer):
    assert get(cut(CONTENT, 300_000), answer, whole(CONTENT)) == CONTENT
    assert [asked is None for asked in server.ranges()] == [True, False, True]


def test_attempts_that_bring_something_are_not_counted(get, server):
    def piece(handler):
        begin = int(handler.headers.get("Range", "bytes=0-")[6:-1])
        extent = f"bytes {begin}-{len(CONTENT) - 1}/{len(CONTENT)}"
        rest = CONTENT[begin : begin + 150_000]
        handler.answer(206, rest, len(CONTENT) - begin, ETag='"1"', Content_Range=extent)

    assert get(piece) == CONTENT
    assert len(server.asked) > QUICK.attempts


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_busy_server_is_asked_again(get, server, code):
    assert get(status(code), status(code), whole(CONTENT)) == CONTENT
    assert len(server.asked) == 3


def test_the_server_says_how_long_to_wait(get):
    begin = time.monotonic()
    assert get(status(429, Retry_After="1"), whole(CONTENT)) == CONTENT
    assert time.monotonic() - begin >= 1


def test_attempts_end(get, server):
    with pytest.raises(DataError, match=r"data\.zip: HTTP 503 .*\(attempt 3\)\. Run again later"):
        get(status(503))
    assert len(server.asked) == QUICK.attempts


def test_a_file_that_is_gone_is_not_asked_for_again(get, server):
    with pytest.raises(
        DataError, match=r"data\.zip: HTTP 404 Not Found\. .*haste fetch NAME --from"
    ):
        get(status(404))
    assert len(server.asked) == 1


def test_a_server_that_is_not_there(tmp_path):
    with serving() as server:
        url = server.url
    origin = Origin(via="https", url=f"{url}/data.zip", unpacked=1)
    with pytest.raises(DataError, match=r"Connection refused.*\(attempt 3\)"):
        download(origin, tmp_path, None, QUICK)


def test_a_page_is_not_taken_for_the_file(get, tmp_path):
    with pytest.raises(DataError, match=r"a web page \(Google Drive - Quota exceeded\) instead"):
        get(page(QUOTA_PAGE))
    assert names(tmp_path) == []


def test_a_disk_that_fills_up_names_the_file(get, tmp_path):
    (tmp_path / "data.zip.part").symlink_to("/dev/full")
    with pytest.raises(NoRoomError, match=r"data\.zip\.part: the disk is full"):
        get(whole(CONTENT))


def test_an_encrypted_connection_stays_one(server, tmp_path, monkeypatch):
    server.script["/data.zip"] = [whole(CONTENT)]
    route(monkeypatch, "https://example.org", server, shown=f"{server.url}/data.zip")
    origin = Origin(via="https", url="https://example.org/data.zip", unpacked=1)
    with pytest.raises(DataError, match=r"leads to http://127.*, which is not encrypted; refused"):
        download(origin, tmp_path, None, QUICK)


@pytest.mark.parametrize("says_length", [True, False])
def test_more_than_is_expected_is_not_received(server, tmp_path, says_length):
    sent = []

    def step(handler):
        handler.send_response(200)
        if says_length:
            handler.send_header("Content-Length", str(2**30))
        handler.send_header("Connection", "close")
        handler.end_headers()
        for _ in range(2**10):
            handler.wfile.write(bytes(2**20))
            sent.append(1)

    server.script["/data.zip"] = [step]
    origin = Origin(via="https", url=f"{server.url}/data.zip", size=1000, unpacked=1)
    with pytest.raises(DataError, match="bytes or more, and 1000 are expected"):
        download(origin, tmp_path, None, QUICK)
    assert len(sent) < 2**6
    assert names(tmp_path) == []


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip"])
def test_a_compressed_file_stays_one_whatever_a_server_calls_it(get, encoding):
    content = gzip.compress(CONTENT)
    assert get(whole(content, Content_Encoding=encoding)) == content


def test_a_length_that_is_no_number_is_not_believed(get):
    def step(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "many")
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(b"content")
        handler.close_connection = True

    assert get(step) == b"content"


def test_a_way_over_an_unencrypted_address_is_refused(server, tmp_path, monkeypatch):
    server.script["/data.zip"] = [whole(CONTENT)]
    route(monkeypatch, "https://example.org", server, over="http://example.org/data.zip")
    origin = Origin(via="https", url="https://example.org/data.zip", unpacked=1)
    with pytest.raises(DataError, match=r"leads to http://example.org.*, which is not encrypted"):
        download(origin, tmp_path, None, QUICK)


def test_a_folder_file_by_file(server, tmp_path):
    server.script["/m/a.json"] = [status(503), whole(b"{}")]
    server.script["/m/sub/b.bin"] = [whole(b"12")]
    members = {"a.json": "a.json", "b": "sub/b.bin"}
    origin = Origin(via="https", url=f"{server.url}/m/", unpacked=9, members=members)
    download(origin, tmp_path, None, QUICK)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a.json": b"{}", "b": b"12"}


def route(monkeypatch, prefix, server, shown=None, over=None):
    """Requests to `prefix` go to the server; answers seem to come from `shown`, or where they were asked, and
    to have been led there by `over`."""
    send = requests.Session.send

    def rerouted(session, request, **options):
        asked = request.url
        if asked.startswith(prefix):
            request.url = server.url + asked[len(prefix) :]
        response = send(session, request, **options)
        response.url = shown or asked
        if over:
            response.history = [requests.Response()]
            response.history[0].url = over
        return response

    monkeypatch.setattr(requests.Session, "send", rerouted)


@pytest.fixture
def from_drive(server, tmp_path, monkeypatch):
    """Downloads a file of Google Drive, which is the server."""
    for host in ("drive.google.com", "drive.usercontent.google.com"):
        route(monkeypatch, f"https://{host}", server)

    def get(*steps, confirmed=()):
        server.script["/uc"], server.script["/download"] = list(steps), list(confirmed)
        url = "https://drive.google.com/uc?export=download&id=abc"
        origin = Origin(via="drive", url=url, file="data.zip", unpacked=1)
        download(origin, tmp_path, None, QUICK)
        return (tmp_path / "data.zip").read_bytes()

    return get


AS_FILE = {
    "Content_Disposition": 'attachment; filename="other.zip"',
    "Content_Type": "application/zip",
}


def test_drive_asks_whether_one_is_sure(from_drive, server):
    assert from_drive(page(WARNING_PAGE), confirmed=[whole(CONTENT, **AS_FILE)]) == CONTENT
    assert [path for path, *_ in server.asked] == ["/uc", "/download"]


@pytest.mark.parametrize("answer", [QUOTA_PAGE, b"<html><title>Sign in</title></html>"])
def test_drive_has_had_enough(from_drive, tmp_path, answer):
    with pytest.raises(DataError) as info:
        from_drive(page(answer))
    assert "Google Drive gives no file: Failed to retrieve file url" in str(info.value)
    assert "try again tomorrow. Fetch it in a browser and give it with" in str(info.value)
    assert names(tmp_path) == []


def test_a_cut_download_from_drive_goes_on(from_drive, server):
    def head(handler):
        handler.answer(200, CONTENT[:600_000], len(CONTENT), ETag='"1"', **AS_FILE)

    assert from_drive(head, whole(CONTENT, **AS_FILE)) == CONTENT
    assert any(asked and asked.startswith("bytes=") for asked in server.ranges())
