"""The table of public material, its checks, its pins and its downloads; no network."""

from __future__ import annotations

import hashlib
import io
import json
import urllib.error
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from holdfast.errors import DataError, MaterialError, RecipeError, StorageError
from holdfast.rows import sources
from holdfast.rows.sources import Source

CONTENT = b"a,b\n1,2\n"


def a_source(name: str = "toy", content: bytes | None = CONTENT) -> Source:
    return Source(
        name=name,
        what="a toy",
        licence="MIT",
        commercial=True,
        files=(f"{name}/rows.csv", f"{name}.csv"),
        revision="abc",
        path="data/some rows.csv",
        github="owner/repo",
        sha256=hashlib.sha256(content).hexdigest() if content is not None else None,
        bytes=len(content) if content is not None else None,
    )


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of two toys, one of them without a checksum."""
    table = {"toy": a_source(), "loose": a_source("loose", None)}
    monkeypatch.setattr(sources, "known", lambda: table)
    monkeypatch.setattr(sources, "SUITES", {"both": ("toy", "loose")})


class Web:
    """Addresses and what they answer."""

    def __init__(self, pages: Mapping[str, bytes]) -> None:
        self.pages = pages
        self.asked: list[str] = []

    def __call__(self, url: str) -> io.BytesIO:
        self.asked.append(url)
        if url not in self.pages:
            raise urllib.error.URLError("no route")
        return io.BytesIO(self.pages[url])


TOY = "https://raw.githubusercontent.com/owner/repo/abc/data/some%20rows.csv"


def put(folder: Path, content: bytes = CONTENT, file: str = "toy/rows.csv") -> Path:
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


# --- finding -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize("file", ["toy/rows.csv", "toy.csv"])
def test_a_source_is_found_in_either_layout(tmp_path: Path, file: str) -> None:
    assert sources.find("toy", tmp_path) is None
    assert sources.find("toy", None) is None
    path = put(tmp_path, file=file)
    assert sources.find("toy", tmp_path) == path
    assert sources.require("toy", tmp_path) == path
    assert sources.missing("toy", tmp_path) is None


@pytest.mark.usefixtures("toys")
def test_what_is_missing_is_said_with_the_command(tmp_path: Path) -> None:
    line = sources.missing("toy", tmp_path)
    assert line == (
        f"toy: a toy: not in {tmp_path} (as toy/rows.csv). "
        f"Get it: holdfast fetch toy --to {tmp_path}"
    )
    with pytest.raises(MaterialError) as error:
        sources.require("toy", tmp_path)
    assert str(error.value) == line
    assert "then set data_dir: data" in str(sources.missing("toy", None))
    assert "On a connected machine: holdfast fetch toy" in str(sources.missing("toy", None, True))


@pytest.mark.usefixtures("toys")
def test_another_file_under_the_name_is_an_error(tmp_path: Path) -> None:
    path = put(tmp_path, CONTENT.replace(b"1", b"7"))
    assert sources.missing("toy", tmp_path) is None  # cheap: looks at the size only
    with pytest.raises(MaterialError, match=r"is not the file Holdfast knows as toy.*fetch toy"):
        sources.require("toy", tmp_path)
    path.write_bytes(CONTENT + b"more")
    assert "has 12 bytes; toy has 8" in str(sources.missing("toy", tmp_path))
    path.write_bytes(CONTENT)
    assert sources.require("toy", tmp_path) == path


@pytest.mark.usefixtures("toys")
def test_unknown_names_are_errors() -> None:
    with pytest.raises(RecipeError, match=r"Unknown source 'toi'\. Did you mean 'toy'\?"):
        sources.get("toi")
    with pytest.raises(RecipeError, match=r"Did you mean 'both'\?"):
        sources.expand(["boht"])


# --- pins --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("toys")
def test_a_source_without_checksum_is_pinned_on_first_use(tmp_path: Path) -> None:
    path = put(tmp_path, file="loose/rows.csv")
    lock = tmp_path / "recipe" / "holdfast.lock"
    assert sources.require("loose", tmp_path, lock=lock) == path
    before = lock.read_bytes()
    sources.require("loose", tmp_path, lock=lock)
    assert lock.read_bytes() == before
    path.write_bytes(b"changed")
    with pytest.raises(MaterialError, match=r"loose has changed since.*remove the line 'loose'"):
        sources.require("loose", tmp_path, lock=lock)
    sources.pin(lock, "other", "0" * 64)
    assert set(sources.read_pins(lock)) == {"loose", "other"}


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize("text", ["", "[1]", "sources: {a: b}", "sources: 3", ":\n:"])
def test_a_broken_lock_file_is_an_error(tmp_path: Path, text: str) -> None:
    lock = tmp_path / "holdfast.lock"
    lock.write_text(text)
    with pytest.raises(DataError, match="is no lock file of Holdfast"):
        sources.read_pins(lock)


# --- fetching ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("toys")
def test_fetch_brings_verifies_pins_and_resumes(tmp_path: Path) -> None:
    web = Web({TOY: CONTENT})
    done: list[str] = []
    first = sources.fetch(["both", "toy"], tmp_path, web, lambda one: done.append(one.source.name))
    assert done == ["toy", "loose"]
    assert [one.downloaded for one in first] == [True, True]
    assert sources.require("toy", tmp_path).read_bytes() == CONTENT
    assert sources.read_pins(tmp_path / "holdfast.lock") == {"loose": first[1].sha256}
    again = sources.fetch(["both"], tmp_path, web)
    assert [one.downloaded for one in again] == [False, False]
    assert len(web.asked) == 2
    put(tmp_path, b"torn")
    assert sources.fetch(["toy"], tmp_path, web)[0].downloaded
    assert sources.require("toy", tmp_path).read_bytes() == CONTENT


@pytest.mark.usefixtures("toys")
def test_content_that_is_not_as_pinned_is_not_stored(tmp_path: Path) -> None:
    with pytest.raises(MaterialError, match="no longer holds toy as pinned"):
        sources.fetch(["toy"], tmp_path, Web({TOY: b"other"}))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.usefixtures("toys")
def test_no_network_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(MaterialError, match=r"toy could not be downloaded.*no route.*connected"):
        sources.fetch(["toy"], tmp_path, Web({}))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.usefixtures("toys")
def test_a_connection_that_breaks_off_is_an_error(tmp_path: Path) -> None:
    class Short(io.BytesIO):
        headers: Mapping[str, str] = {"Content-Length": "100"}

    with pytest.raises(MaterialError, match="IncompleteRead"):
        sources.fetch(["loose"], tmp_path, lambda url: Short(CONTENT))


@pytest.mark.usefixtures("toys")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "toy").write_text("a file where a folder should be")
    with pytest.raises(StorageError, match="cannot be written"):
        sources.fetch(["toy"], tmp_path, Web({TOY: CONTENT}))


@pytest.mark.usefixtures("toys")
def test_only_https_is_opened() -> None:
    with pytest.raises(MaterialError, match="is not an https address"):
        sources.open_url("file:///etc/hostname")


@pytest.mark.usefixtures("toys")
def test_the_hub_has_its_own_address(monkeypatch: pytest.MonkeyPatch) -> None:
    source = replace(a_source(), github=None, hub="owner/set", revision="main")
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    tail = "/datasets/owner/set/resolve/main/data/some%20rows.csv"
    assert source.url == "https://huggingface.co" + tail
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/")
    assert source.url == "https://mirror.example" + tail


# --- the table ---------------------------------------------------------------------------------


def test_the_table_is_whole() -> None:
    table = sources.known()
    places = [file for source in table.values() for file in source.files]
    assert len(places) == len(set(places))
    for source in table.values():
        assert (source.github is None) != (source.hub is None)
        assert source.sha256 is None or len(source.sha256) == 64
        assert (source.sha256 is None) == (source.bytes is None)
        assert source.url.startswith("https://")
    for names in sources.SUITES.values():
        assert set(names) <= set(table)
    assert not table["p1"].commercial


def test_the_table_agrees_with_the_copies(real_data: Path) -> None:
    listed = {
        entry["file"]: entry for entry in json.loads((real_data / "sources.json").read_text())
    }
    pinned = {s.files[0]: s for s in sources.known().values() if s.sha256 is not None}
    assert set(pinned) == set(listed)
    for file, source in pinned.items():
        entry = listed[file]
        assert (source.github, source.revision, source.path, source.sha256, source.bytes) == (
            entry["github"], entry["revision"], entry["path"], entry["sha256"], entry["bytes"],
        )  # fmt: skip
        assert sources.require(source.name, real_data) == real_data / file
