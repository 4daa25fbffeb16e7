"""Rows of a Hub dataset: `owner/name`, with `:configuration` and `@revision` where needed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from holdfast.errors import DataError, HoldfastError, MaterialError

HUB_ID = re.compile(
    r"(?P<id>[A-Za-z0-9][\w.-]*/[\w.-]+)(:(?P<config>[\w.-]+))?(@(?P<revision>[\w./-]+))?"
)

_PROBE_TIMEOUT_S = 10


def open_hub(ref: str, split: str, cache_dir: Path | None = None) -> Any:
    """The split as a memory-mapped `datasets.Dataset`; what is cached is read without network.

    Raises:
        MaterialError: without `datasets`, or when the Hub cannot be reached and nothing is cached.
        DataError: no such dataset, configuration or split, or one that may not be read.
    """
    match = HUB_ID.fullmatch(ref)
    if match is None:
        raise DataError(
            f"{ref!r} is no Hub dataset; expected owner/name[:configuration][@revision]"
        )
    datasets = _datasets(ref)
    online = _reachable(match["id"], match["revision"])
    cache = str(cache_dir) if cache_dir is not None else None
    try:
        with _offline_unless(online):
            found = datasets.load_dataset(
                match["id"], match["config"], split=split, revision=match["revision"],
                cache_dir=cache,
            )  # fmt: skip
    # Whatever these libraries raise here is the dataset's or the network's doing, not ours.
    except Exception as error:
        raise _explained(ref, match["id"], split, error, online=online) from error
    return found


def _datasets(ref: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise MaterialError(
            f"{ref}: reading a Hub dataset needs the package datasets. "
            "Install it: pip install 'holdfast[hub]'"
        ) from error
    return datasets


def _reachable(dataset_id: str, revision: str | None) -> bool:
    """One quick question instead of the library's minute of retries."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        HfApi().dataset_info(dataset_id, revision=revision, timeout=_PROBE_TIMEOUT_S)
    except HfHubHTTPError:
        return True  # the Hub answered, if only to refuse; `load_dataset` says it better
    except Exception:
        return False  # any kind of "no connection", of whichever HTTP library is below
    return True


@contextmanager
def _offline_unless(online: bool) -> Iterator[None]:
    """Both libraries' own offline switch, which they read from the environment once, at import."""
    if online:
        yield
        return
    import datasets
    from huggingface_hub import constants

    before = (constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE)
    constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before


def _explained(
    ref: str, dataset_id: str, split: str, error: Exception, *, online: bool
) -> HoldfastError:
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    if not online:
        return MaterialError(
            f"{ref} is no file here, and as a Hub dataset it can neither be reached nor found in "
            "the cache. Check the path or the network; without network, download the file "
            "elsewhere and give its path (.jsonl, .json, .csv, .parquet)."
        )
    if "onfig name is missing" in reason or "BuilderConfig" in reason:
        return DataError(
            f"{ref}: the dataset has several configurations ({reason}). "
            f"Name one after a colon, for example {dataset_id}:main"
        )
    return DataError(
        f"{ref} (split {split!r}) cannot be read from the Hub: {reason}. "
        "Check its name, configuration, revision and split, and whether its terms were accepted."
    )
