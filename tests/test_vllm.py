"""The engine `vllm` against a stand-in for the program: started, asked, ended, and misbehaving."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path

import pytest

from holdfast.endpoint import EndpointError
from holdfast.engines import Decoding
from holdfast.errors import MaterialError, ModelError
from holdfast.measuring.evaluation import Evaluation
from holdfast.models import resolve_model
from holdfast.types import Message, Prompt

pytest.importorskip("httpx")
pytest.importorskip("transformers")

from holdfast.engines.vllm import AT_ONCE, VLLMEngine, serve_command

STAND_IN = Path(__file__).with_name("vllm_stand_in.py")


@pytest.fixture
def vllm(tmp_path, monkeypatch):
    """A program `vllm` on PATH; gives what it was asked, and sets its mood."""
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "vllm"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{STAND_IN}" "$@"\n')
    program.chmod(0o755)
    log = tmp_path / "asked.jsonl"
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("STAND_IN_LOG", str(log))

    def asked(mood=None):
        if mood is not None:
            monkeypatch.setenv("STAND_IN", mood)
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    return asked


@pytest.fixture
def ref(model_folder):
    return resolve_model(model_folder)


def prompt(text="How do I clean the kettle?", prefill="", **more):
    return Prompt((Message.of("user", text),), prefill, **more)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def hasty(engine):
    engine.endpoint = dataclasses.replace(engine.endpoint, retries=1, pause=0.01)
    return engine


def test_prompts_are_the_ids_that_the_local_engine_computes(vllm, ref, tokenizer, model):
    from holdfast.engines.transformers import TransformersEngine

    prompts = [prompt(), prompt(prefill="First"), prompt("Once", raw=True)]
    engine = VLLMEngine(ref)
    answers = engine.generate(prompts, Decoding(max_new_tokens=7))
    engine.close()
    local = TransformersEngine(model, tokenizer)
    started, *sent = vllm()
    assert started["words"][:2] == ["serve", ref.location]
    by_ids = {tuple(body["prompt"]): body for body in sent}
    assert by_ids.keys() == {tuple(local.row(p).ids) for p in prompts}
    assert all(b["max_tokens"] == 7 and b["temperature"] == 0 for b in sent)
    assert all(b["stop_token_ids"] == list(local.row(prompts[0]).stops) for b in sent)
    assert [(a.text, a.truncated) for a in answers] == [(" First rinse it.", False)] * 3
    assert engine.render(prompts[1]) == local.render(prompts[1])
    assert engine.length(prompts[1]) == local.length(prompts[1])


def test_the_server_is_gone_afterwards(vllm, ref):
    engine = VLLMEngine(ref)
    pid = vllm()[0]["pid"]
    assert alive(pid)
    engine.close()
    engine.close()  # nothing happens
    assert not alive(pid)
    forgotten = VLLMEngine(ref)
    pid = vllm()[-1]["pid"]
    del forgotten
    assert not alive(pid)


def test_many_requests_are_open_at_once_but_no_more_than_the_server_computes(vllm, ref):
    engine = VLLMEngine(ref)
    engine.generate([prompt(f"Kettle {n}?") for n in range(40)], Decoding(5))
    engine.close()
    started, *sent = vllm()
    words = started["words"]
    assert int(words[words.index("--max-num-seqs") + 1]) == AT_ONCE
    assert 8 < max(body["together"] for body in sent) <= AT_ONCE


def test_likelihoods_come_from_the_prompts_log_probabilities(vllm, ref):
    engine = VLLMEngine(ref)
    (score,) = engine.loglikelihood([prompt()], ["First rinse it."])
    engine.close()
    head = len(engine.tokens.row(prompt()).ids)
    tail = len(engine.tokens.reply_ids(prompt(), "First rinse it.", ended=True))
    assert score == pytest.approx(-0.5 * (head + (tail - 1) / 2))


def test_an_adapter_is_served_on_its_base(vllm, tmp_path, ref):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    config = {"base_model_name_or_path": ref.location, "r": 24}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    words = serve_command(resolve_model(adapter), ["--tensor-parallel-size", "2"])
    assert words[1:3] == ["serve", ref.location]
    assert words[words.index("--max-lora-rank") + 1] == "32"
    assert words[words.index("--lora-modules") + 1] == f"holdfast={adapter}"
    assert words[-2:] == ["--tensor-parallel-size", "2"]


def test_without_the_program_it_says_what_to_do(ref, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MaterialError, match=r"environment of its own.*http://HOST"):
        VLLMEngine(ref)


def test_a_server_that_dies_at_the_start_is_quoted(vllm, ref):
    vllm("dies")
    with pytest.raises(ModelError, match=r"ended with 1(.|\n)*does not fit"):
        VLLMEngine(ref)


def test_a_server_that_never_gets_ready_is_ended(vllm, ref):
    vllm("hangs")
    with pytest.raises(ModelError, match=r"not ready within 1 s(.|\n)*loading weights"):
        VLLMEngine(ref, patience=1)
    assert not alive(vllm()[0]["pid"])


def test_a_busy_server_is_asked_again(vllm, ref):
    vllm("busy")
    engine = VLLMEngine(ref)
    answers = engine.generate([prompt(f"Kettle {n}?") for n in range(5)], Decoding(5))
    engine.close()
    assert [a.text for a in answers] == [" First rinse it."] * 5
    assert len(vllm()) == 1 + 5 * 3


@pytest.mark.parametrize(("mood", "told"), [("breaks", "out of order"), ("crashes", "no answer")])
def test_a_server_that_fails_is_an_error_and_ended(vllm, ref, mood, told):
    from holdfast.engines._open import in_use

    vllm(mood)
    with pytest.raises(EndpointError, match=told), in_use(hasty(VLLMEngine(ref))) as engine:
        engine.generate([prompt()], Decoding(5))
    assert not alive(vllm()[0]["pid"])


def test_a_whole_evaluation_by_command(vllm, model_folder, holdfast, tmp_path):
    code, _, err = holdfast(
        "evaluate", str(model_folder), "--output", str(tmp_path / "out"), "--engine", "vllm",
        "--task", "lab-forbidden", "--attack", "direct", "--judge", "refusal", "--limit", "3",
    )  # fmt: skip
    assert code == 0, err
    found = Evaluation.read(tmp_path / "out")
    assert found.settings["engine"] == "vllm" and len(found.attempts) == 3
    assert {a.response for a in found.attempts.values()} == {" First rinse it."}
    assert not alive(vllm()[0]["pid"])
