"""The client and the engine of served models, against a server that misbehaves in known ways."""

from __future__ import annotations

import json
import logging
import pickle
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from holdfast.endpoint import ENDPOINT_KEY, Address, Blocked, Endpoint, EndpointError
from holdfast.engines import Decoding
from holdfast.engines.openai import OpenAIEngine
from holdfast.errors import HoldfastError, ModelError, RecipeError
from holdfast.measuring.evaluation import Evaluation
from holdfast.models import fingerprint, load_tokenizer, resolve_model
from holdfast.types import Message, Prompt
from server import Server, chat, slow

pytest.importorskip("httpx")
SECRET = "sk-very-secret-0123456789"


def prompt(text="Hello?", prefill="", **more):
    return Prompt((Message.of("user", text),), prefill, **more)


def client(server, **more):
    waits = []
    made = Endpoint(server.url, sleep=waits.append, **{"retries": 3, "timeout": 5.0, **more})
    return made, waits


def engine(server, **more):
    made = client(server, **more.pop("patience", {}))[0]
    return OpenAIEngine(Address.parse(server.model), endpoint=made, **more)


def in_turn(*replies):
    left = list(replies)
    return lambda body: left.pop(0) if len(left) > 1 else left[0]


# --- addresses ------------------------------------------------------------------------------------


def test_addresses_are_told_from_folders_and_hub_ids():
    served = Address.parse("http://host:8000/v1/#org/name")
    assert (served.url, served.model) == ("http://host:8000/v1", "org/name")
    assert Address.parse(served.name) == served
    assert Address.parse("openai:gpt-x").name == "openai:gpt-x"
    assert Address.parse("openai:gpt-x").key_variable != served.key_variable
    assert Address.parse("lab:chat") is Address.parse("org/name") is Address.parse("./f") is None


@pytest.mark.parametrize("name", ["http://host/v1", "http://#m", "openai:", "https://u:p@h/v1#m"])
def test_half_addresses_are_errors_with_a_cure(name):
    with pytest.raises(ModelError, match=r"write|environment"):
        Address.parse(name)


def test_a_served_model_can_be_asked_but_not_trained():
    ref = resolve_model("http://host/v1#m")
    assert ref.address.model == "m" and ref.path is None
    assert fingerprint(ref) != fingerprint(resolve_model("http://host/v1#n"))
    with pytest.raises(ModelError, match="served elsewhere"):
        load_tokenizer(ref)


# --- patience -------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 529])
def test_passing_failures_are_tried_again_with_longer_pauses(status):
    with Server(in_turn((status, {}), (status, b"<html>"), chat("yes"))) as server:
        made, waits = client(server)
        assert made.post("/chat/completions", {})["choices"]
    assert len(waits) == 2 and waits[0] < waits[1]
    assert (made.usage.requests, made.usage.retries) == (1, 2)
    assert (made.usage.prompt_tokens, made.usage.completion_tokens) == (10, 3)
    assert made.usage.cost(2.0, 10.0) == pytest.approx(50e-6)


def test_patience_ends_with_the_servers_own_words():
    with Server(in_turn((500, {"error": {"message": "out of order"}}))) as server:
        made, waits = client(server)
        with pytest.raises(EndpointError, match=r"out of order.*4 tries"):
            made.post("/chat/completions", {})
    assert len(waits) == 3 and len(server.asked) == 4


def test_retry_after_is_honoured_in_both_forms():
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    busy = [(429, {}, {"Retry-After": "7"}), (429, {}, {"Retry-After": later})]
    with Server(in_turn(*busy, chat("yes"))) as server:
        made, waits = client(server)
        made.post("/chat/completions", {})
    assert waits[0] == 7 and 25 < waits[1] <= 30


def test_a_server_that_asks_for_too_long_a_wait_is_an_error_at_once():
    with Server(in_turn((429, {}, {"Retry-After": "86400"}))) as server:
        made, waits = client(server)
        with pytest.raises(EndpointError, match="86400 s"):
            made.post("/chat/completions", {})
    assert waits == []


@pytest.mark.parametrize(
    ("status", "cure"),
    [(401, ENDPOINT_KEY), (404, "base URL"), (302, "final"), (400, "request")],
)
def test_lasting_failures_are_not_repeated(status, cure):
    with Server(in_turn((status, {"error": {"message": "no"}}, {"Location": "/x"}))) as server:
        made, waits = client(server)
        with pytest.raises(EndpointError, match=cure):
            made.post("/chat/completions", {})
    assert waits == [] and len(server.asked) == 1


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"null", b"\xff\xfe", b"[" * 100_000])
def test_bodies_that_are_no_answer_are_tried_again_then_named(body):
    with Server(in_turn(body)) as server:
        made, _ = client(server, retries=1)
        with pytest.raises(EndpointError, match="no JSON object"):
            made.post("/chat/completions", {})
    assert len(server.asked) == 2


def test_a_slow_server_ends_in_a_time_out():
    with Server(lambda body: slow(0.6, chat("late"))) as server:
        made, _ = client(server, timeout=0.15, retries=1)
        with pytest.raises(EndpointError, match=r"nothing for 0\.15 s"):
            made.post("/chat/completions", {})


def test_a_server_that_is_not_there():
    made = Endpoint("http://127.0.0.1:9/v1", retries=1, sleep=lambda s: None)
    with pytest.raises(EndpointError, match="Check that the server runs"):
        made.post("/chat/completions", {})


def test_an_endless_body_is_cut(monkeypatch):
    monkeypatch.setattr("holdfast.endpoint._MAX_BODY", 1000)
    with Server(in_turn(b" " * 5000)) as server:
        made, _ = client(server)
        with pytest.raises(EndpointError, match="check the URL"):
            made.post("/chat/completions", {})


@pytest.mark.parametrize(
    "error",
    [
        {"code": "content_filter", "message": "filtered"},
        {"code": "x", "innererror": {"code": "ResponsibleAIPolicyViolation"}},
    ],
)
def test_a_content_filter_is_an_outcome_of_its_own(error):
    with Server(in_turn((400, {"error": error}))) as server:
        made, _ = client(server)
        assert isinstance(made.post("/chat/completions", {}), Blocked)
    assert made.usage.blocked == 1


def test_no_more_requests_are_open_than_allowed_and_order_holds():
    with Server(lambda body: slow(0.03, chat(str(body["n"])))) as server:
        made, _ = client(server, concurrency=3)
        found = made.post_all("/chat/completions", [{"n": n} for n in range(12)])
    assert [f["choices"][0]["message"]["content"] for f in found] == [str(n) for n in range(12)]
    assert server.most_open <= 3


# --- the key --------------------------------------------------------------------------------------


def test_the_key_goes_to_the_server_and_nowhere_else(monkeypatch, caplog, tmp_path):
    monkeypatch.setenv(ENDPOINT_KEY, SECRET)
    caplog.set_level(logging.DEBUG)
    leaky = (401, {"error": {"message": f"Incorrect key {SECRET}"}})
    with Server(in_turn(chat(f"Your key is {SECRET}"), leaky)) as server:
        made = engine(server, cache=tmp_path / "cache")
        (answer,) = made.generate([prompt()], Decoding(5))
        with pytest.raises(EndpointError) as raised:
            made.generate([prompt("Again?")], Decoding(5))
    assert all(h["Authorization"] == f"Bearer {SECRET}" for h in server.headers)
    stored = "".join(p.read_text() for p in tmp_path.rglob("*.json"))
    shown = [answer.text, str(raised.value), repr(made.endpoint), repr(vars(made)), caplog.text]
    assert "Your key is [key]" in stored and all(SECRET not in text for text in [stored, *shown])


def test_openais_key_is_not_sent_to_other_servers(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.delenv(ENDPOINT_KEY, raising=False)
    with Server(in_turn(chat("yes"))) as server:
        engine(server).generate([prompt()], Decoding(5))
    assert "Authorization" not in server.headers[0]


def test_a_key_that_cannot_be_one_is_named_without_being_shown(monkeypatch):
    monkeypatch.setenv(ENDPOINT_KEY, "two words\nSECRET")
    with Server(in_turn(chat("yes"))) as server:
        made, _ = client(server)
        with pytest.raises(HoldfastError, match=ENDPOINT_KEY) as raised:
            made.post("/chat/completions", {})
    assert "SECRET" not in str(raised.value)


# --- the engine -----------------------------------------------------------------------------------


def test_prefill_and_raw_are_sent_as_vllm_takes_them():
    def answer(body):
        if body["path"].endswith("/chat/completions"):
            return chat(" and on", "length")
        return {"choices": [{"text": " raw", "finish_reason": "stop"}]}

    with Server(answer) as server:
        made = engine(server)
        assert made.can == {"prefill", "raw"}
        asked = [prompt(prefill="Sure"), prompt("Once", raw=True), prompt()]
        answers = made.generate(asked, Decoding(7))
    assert [(a.text, a.truncated) for a in answers] == [
        (" and on", True), (" raw", False), (" and on", True),
    ]  # fmt: skip
    sent = next(b for b in server.asked if b.get("continue_final_message"))
    assert sent["messages"][-1] == {"role": "assistant", "content": "Sure"}
    assert sent["add_generation_prompt"] is False and sent["max_tokens"] == 7
    assert next(b for b in server.asked if "prompt" in b)["prompt"] == "Once"


def test_a_server_that_cannot_continue_says_so_before_anything_is_asked():
    with Server(in_turn((404, {})), owner="somebody") as server:
        made = engine(server)
        assert made.can == frozenset()
        before = len(server.asked)
        with pytest.raises(RecipeError, match="already begun"):
            made.generate([prompt(), prompt(prefill="Sure")], Decoding(5))
        with pytest.raises(RecipeError, match="log-probabilities"):
            made.loglikelihood([prompt()], ["x"])
    assert len(server.asked) == before


def test_an_unknown_model_gets_the_nearest_name():
    with Server(in_turn(chat("yes"))) as server:
        made = OpenAIEngine(f"{server.url}#mm")
        with pytest.raises(EndpointError, match="Did you mean 'm'"):
            _ = made.can


@pytest.mark.parametrize(
    "reply", [chat("cut", "content_filter"), (400, {"error": {"code": "content_filter"}})]
)
def test_a_blocked_answer_is_no_answer_and_not_a_refusal(reply):
    with Server(in_turn(reply)) as server:
        (answer,) = engine(server).generate([prompt()], Decoding(5))
    assert answer.text == "" and "content filter" in answer.missing


def test_the_models_own_refusal_field_is_its_answer():
    with Server(in_turn(chat(None, refusal="I won't."))) as server:
        (answer,) = engine(server).generate([prompt()], Decoding(5))
    assert answer.text == "I won't." and not answer.missing


@pytest.mark.parametrize("reply", [{}, {"choices": []}, {"choices": [{"message": {}}]}, chat(None)])
def test_answers_without_text_are_errors(reply):
    with Server(in_turn(reply)) as server, pytest.raises(EndpointError, match="holds text"):
        engine(server).generate([prompt()], Decoding(5))


def test_failures_can_be_recorded_instead_but_not_all_of_them():
    def answer(body):
        return (500, {}) if "bad" in json.dumps(body["messages"]) else chat("fine")

    with Server(answer) as server:
        made = engine(server, failures="record", patience={"retries": 0})
        good, bad = made.generate([prompt("good"), prompt("bad")], Decoding(5))
        assert good.text == "fine" and "500" in bad.missing
        with pytest.raises(EndpointError):
            made.generate([prompt("bad"), prompt("bad, too")], Decoding(5))


def test_the_cache_knows_a_question_by_its_content(tmp_path):
    with Server(lambda body: chat(str(len(server.asked)))) as server:
        made = engine(server, cache=tmp_path)
        first = made.generate([prompt("a"), prompt("b")], Decoding(5))
        again = engine(server, cache=tmp_path)
        assert again.generate([prompt("b"), prompt("a")], Decoding(5)) == first[::-1]
        assert (again.endpoint.usage.cached, again.endpoint.usage.requests) == (2, 0)
        again.generate([prompt("a")], Decoding(6))
        assert again.endpoint.usage.requests == 1
        for path in tmp_path.rglob("*.json"):
            path.write_text("{broken")
        assert made.generate([prompt("a")], Decoding(5))[0].text == "4"


def test_evaluate_takes_an_endpoint(tmp_path):
    from holdfast import evaluate

    def answer(body):
        asked = body["messages"][0]["content"]
        if "2" in asked:
            return (400, {"error": {"code": "content_filter"}})
        return chat("Sorry, I can't help with that.")

    with Server(answer) as server:
        folder = evaluate(
            server.model, tmp_path / "out", tasks=["lab-forbidden"], attacks=["direct"],
            judges=["refusal"], limit=3,
        )  # fmt: skip
    found = Evaluation.read(folder)
    assert found.settings["engine"] == server.model
    for attempt in found.attempts.values():
        verdict = found.verdict(attempt)
        if attempt.missing:
            assert verdict.label == "unscored" and "content filter" in verdict.reason
        else:
            assert verdict.label == "full_refusal"


def test_endpoints_are_not_pickled_with_their_key(monkeypatch):
    monkeypatch.setenv(ENDPOINT_KEY, SECRET)
    assert SECRET.encode() not in pickle.dumps(Address.parse("http://host/v1#m"))
