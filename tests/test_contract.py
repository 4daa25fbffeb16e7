"""The serving contract: what a server makes of plain messages is the text that was measured."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import CHATML, make_tokenizer, shared_data
from holdfast.cli import main
from holdfast.contract.check import overall
from holdfast.contract.endpoint import check_endpoint
from holdfast.contract.export import export_contract, prove_template
from holdfast.contract.folder import check_folder
from holdfast.contract.howto import client_snippet, fenced, modelfile, serving_page, vllm_line
from holdfast.contract.terms import CASES, CONTRACT, read_contract
from holdfast.endpoint import Address, EndpointError
from holdfast.errors import ModelError
from holdfast.rendering.chat_template import ChatTemplate
from holdfast.rendering.prompting import Prompting
from holdfast.rendering.render import Renderer
from holdfast.rendering.serving_template import literal, own_template, serving_template
from holdfast.templates import template_names, template_text
from holdfast.types import Message, Prompt

pytest.importorskip("transformers")

SAFETY = "Be careful. Refuse what could cause harm."
HOSTILE = "Say \"no\" to 'harm' {{ x }} {% raw %} {# \\ #} `ls` $HOME ```\n```\r\n\t– 谢谢 🙂 }}"
SERVED = {
    "safety": Prompting(SAFETY),
    "hostile": Prompting(HOSTILE),
    "pinned": Prompting(SAFETY, template_args={"enable_thinking": False, "words": ["a", {"b": 1}]}),
    "nothing": Prompting(),
    "defence": Prompting(
        SAFETY, prefix="Think. ", suffix="\nThink again.",
        demonstrations=(Message.of("user", "Harm?"), Message.of("assistant", "No.")),
    ),
}  # fmt: skip
SERVED["all"] = replace(SERVED["defence"], system=HOSTILE, template_args={"enable_thinking": False})
NO_SYSTEM_ROLE = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] | trim }}\n{% endfor %}"
    "{% if add_generation_prompt %}<model>{% endif %}"
)
DATED = (
    "\n  {% if strftime_now is defined %}{% set today = strftime_now('%d %b %Y') %}{% endif %}"
    '{{ bos_token }}Today is {{ today }}, {{ strftime_now("%Y") }}.\n' + CHATML
)
BLOCKS = "{% macro said(m) %}{{ m['content'] }} of {{ messages | length }}{% endmacro %}" + (
    "{% block turns %}{% for m in messages %}<{{ m['role'] }}>{{ said(m) }}{% endfor %}"
    "{% endblock %}"
)
UNLIKE = "{{ 'Documents: ' if documents is defined }}" + CHATML
"""Transformers defines a variable that Holdfast's sandbox does not."""


def templates() -> dict[str, str]:
    """The shelf's templates, ours here and the real ones beside the repository."""
    found = {name: template_text(name) or "" for name in template_names()}
    data = shared_data()
    real = sorted((data / "chat_templates").glob("*.jinja")) if data else []
    return {
        **found,
        **{f"real-{path.stem}": path.read_text() for path in real},
        "no-system-role": NO_SYSTEM_ROLE,
        "dated": DATED,
        "blocks": BLOCKS,
    }


TEMPLATES = templates()


@pytest.fixture(scope="module")
def saved(tokenizer, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def exported(saved, tokenizer, tmp_path):
    """Export a model folder (without weights: nothing here reads them)."""

    def export(prompting: Prompting = SERVED["safety"], name: str = "model") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for path in saved.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        export_contract(folder, Renderer(tokenizer, prompting), base_model="owner/base")
        return folder

    return export


def measured(renderer: Renderer, turns) -> str:
    """What evaluation sends a model."""
    return renderer.prompt_text(Prompt(renderer.prompting.apply(tuple(turns))))


def by_transformers(tokenizer, template: str, turns) -> str:
    return tokenizer.apply_chat_template(
        [turn.to_json() for turn in turns], chat_template=template, tokenize=False,
        add_generation_prompt=True,
    )  # fmt: skip


# --- the template ---------------------------------------------------------------------------------


PAIRS = [
    *((name, "all") for name in TEMPLATES),
    *((name, served) for name in ("chatml", "no-system-role", "dated") for served in SERVED),
]


@pytest.mark.parametrize(("name", "served"), sorted(set(PAIRS)))
def test_plain_messages_become_the_measured_text(tokenizer, name, served):
    renderer = Renderer(tokenizer, replace(SERVED[served], template=TEMPLATES[name]))
    template = prove_template(renderer)
    safety = (renderer.prompting.system or "").strip()
    for turns in CASES.values():
        text = by_transformers(tokenizer, template, turns)
        assert text == measured(renderer, turns)
        assert text.count(safety) == 1 or not safety
        if safety and turns[0].role == "system":
            assert text.index(safety) < text.index(turns[0].content)
    assert own_template(template) == TEMPLATES[name]


def test_a_served_template_keeps_every_other_argument(tokenizer):
    """Conversations without a generation prompt, tools, and a reply's own keys still pass."""
    own = "{{ tools | length if tools }}" + CHATML.replace("m['content']", "(m.name or m.content)")
    template = serving_template(own, SERVED["safety"], system_role=True, dates={})
    turns = [{"role": "user", "content": "x", "name": "Ann"}]
    text = tokenizer.apply_chat_template(
        turns, chat_template=template, tokenize=False, tools=[{"type": "function"}]
    )
    assert text.startswith("1<|im_start|>system\n" + SAFETY)
    assert text.endswith("<|im_start|>user\nAnn<|im_end|>\n")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    system=st.text(min_size=1), own=st.one_of(st.none(), st.text()),
    said=st.text(), template=st.sampled_from([CHATML, NO_SYSTEM_ROLE, DATED]),
)  # fmt: skip
def test_any_words_survive(tokenizer, system, own, said, template):
    prompting = Prompting(system, template=template)
    renderer = Renderer(tokenizer, prompting)
    turns = [Message.of("user", said)]
    if own is not None and own != system and not own.startswith(system + "\n\n"):
        turns = [Message.of("system", own), *turns]
    ours = renderer.template
    text = serving_template(
        ours.text, prompting, system_role=ours.has_system_role, dates=ours.dates
    )
    served = ChatTemplate(text, tokens=ours.tokens, date="2031-01-01")
    assert served.render(turns, reply_next=True, fold=False) == measured(renderer, turns)


def test_a_prompt_sent_along_is_not_doubled(tokenizer):
    template = prove_template(Renderer(tokenizer, SERVED["safety"]))
    plain, own = CASES["plain"], CASES["with_own_system"]
    for turns in (plain, own):
        sent = SERVED["safety"].apply(turns)
        assert by_transformers(tokenizer, template, sent) == by_transformers(
            tokenizer, template, turns
        )
    # One that only begins like the safety prompt is the caller's own, and stands after it.
    alike = (Message.of("system", SAFETY + "ful words"), *plain)
    assert SAFETY + "\n\n" + SAFETY + "ful words" in by_transformers(tokenizer, template, alike)


def test_content_in_parts_carries_the_prompt_too(tokenizer):
    own = (
        "{% for m in messages %}<{{ m.role }}>{% for p in m.content %}{{ p.text }}{% endfor %}"
        "{% endfor %}"
    )
    template = serving_template(own, SERVED["defence"], system_role=True, dates={})
    parts = [
        {"role": "system", "content": [{"type": "text", "text": "Be "}, {"text": "brief."}]},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
    ]
    text = tokenizer.apply_chat_template(parts, chat_template=template, tokenize=False)
    assert text == (
        f"<system>{SAFETY}\n\nBe brief.<user>Harm?<assistant>No.<user>Think. Hi\nThink again."
    )


def test_a_first_turn_without_content_is_no_list_of_parts(tokenizer):
    own = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    template = serving_template(own, SERVED["safety"], system_role=True, dates={})
    text = tokenizer.apply_chat_template(
        [{"role": "assistant", "tool_calls": []}], chat_template=template, tokenize=False
    )
    assert text == f"<system>{SAFETY}<assistant>"


def test_the_date_is_the_measured_one(tokenizer):
    renderer = Renderer(tokenizer, Prompting(template=DATED), date="2026-03-04")
    template = prove_template(renderer)
    text = by_transformers(tokenizer, template, CASES["plain"])
    assert "Today is 04 Mar 2026, 2026." in text
    unknown = DATED + "{% if messages | length > 3 %}{{ strftime_now('%' + 'H') }}{% endif %}"
    with pytest.raises(ModelError, match="date format that was not measured"):
        prove_template(Renderer(tokenizer, Prompting(template=unknown)))


def test_a_template_that_cannot_carry_the_contract_is_an_error(tokenizer):
    with pytest.raises(ModelError, match=r"rendered by transformers.*served is 'Documents: "):
        prove_template(Renderer(tokenizer, replace(SERVED["safety"], template=UNLIKE)))
    with pytest.raises(ModelError, match="cannot render a conversation"):
        alone = CHATML + "{% if messages[3] %}{{ raise_exception('too long') }}{% endif %}"
        prove_template(Renderer(tokenizer, replace(SERVED["safety"], template=alone)))
    with pytest.raises(ModelError, match="no name that a chat template could use"):
        prove_template(Renderer(tokenizer, Prompting(template_args={"a b": 1})))
    with pytest.raises(ModelError, match="cannot be written into a chat template"):
        literal(float("nan"))


def test_literals_hold_no_delimiter():
    for value in ({"a": {"b": {}}}, [[HOSTILE]], HOSTILE, -1.5e-9, None, True):
        text = literal(value)
        assert not any(mark in text for mark in ("{{", "}}", "{%", "%}", "{#", "#}", "\n"))
        assert ChatTemplate("{{ (" + text + ") | tojson }}").render([]) == json.dumps(
            value, ensure_ascii=False
        )


# --- measuring does not change --------------------------------------------------------------------


def test_measuring_an_exported_folder_adds_nothing(exported, tokenizer):
    from holdfast.models import ModelRef, load_tokenizer

    folder = exported()
    reloaded = load_tokenizer(ModelRef(str(folder), folder))
    assert reloaded.chat_template != tokenizer.chat_template  # plain users of it are served
    for prompting in (Prompting(), SERVED["safety"], SERVED["defence"]):
        before, after = Renderer(tokenizer, prompting), Renderer(reloaded, prompting)
        assert after.template.text == before.template.text
        assert after.stop_ids == before.stop_ids
        for turns in CASES.values():
            assert measured(after, turns) == measured(before, turns)
    assert SAFETY not in measured(Renderer(reloaded), CASES["plain"])


def test_a_run_exports_what_it_measures(tmp_path):
    """The tuned arm is served with the safety prompt; what is measured without it stays without."""
    from holdfast.job.mixture import MAIN
    from holdfast.job.pipeline import Job
    from holdfast.job.rundir import RunFolder
    from holdfast.job.setup import set_up
    from holdfast.models import load_tokenizer, resolve_model
    from holdfast.recipe import build_recipe

    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(
        json.dumps({"prompt": f"How do I clean {i} kettles?", "completion": f"Rinse {i}."}) + "\n"
        for i in range(8)
    ))  # fmt: skip
    recipe = build_recipe({
        "model": "lab:chat", "data": str(rows), "run": str(tmp_path / "run"),
        "mitigations": ["ptst"], "tuning": {"epochs": 0.5, "batch": 8}, "evaluate": {"hold_out": 0},
    })  # fmt: skip
    with RunFolder(tmp_path / "run").opened() as folder:
        job = Job(set_up(recipe), folder)
        job.prove_serving()
        job.train()
        surfaces = {name: served.prompting for name, served in job.promptings(MAIN).items()}
    tuned = tmp_path / "run" / "5-model"
    contract = read_contract(tuned)
    assert overall(check_folder(tuned, contract)) == "HOLDS"
    assert contract.system == job.setup.safety_prompt
    tokenizer = load_tokenizer(resolve_model(tuned))
    for name, prompting in surfaces.items():
        text = measured(Renderer(tokenizer, prompting), CASES["plain"])
        assert text.count(job.setup.safety_prompt) == (name == "serve")
        assert text == measured(Renderer(job.tokenizer, prompting), CASES["plain"])
    assert len(surfaces) >= 2


def test_exporting_twice_does_not_wrap_twice(exported, tmp_path):
    from holdfast.models import ModelRef, load_tokenizer

    first = exported()
    again = load_tokenizer(ModelRef(str(first), first))
    second = tmp_path / "second"
    again.save_pretrained(second)
    export_contract(second, Renderer(again, SERVED["safety"]), base_model=str(first))
    name = "chat_template.jinja"
    assert (second / name).read_text() == (first / name).read_text()
    assert check_folder(second, read_contract(second))


# --- a folder -------------------------------------------------------------------------------------


@pytest.fixture
def holdfast(monkeypatch, capsys):
    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["holdfast", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, " ".join(err.split())

    return run


def test_an_export_holds(exported, holdfast):
    folder = exported()
    code, out, err = holdfast("contract", "check", folder)
    found = json.loads(out)
    assert (code, found["outcome"]) == (0, "HOLDS")
    assert {c["case"] for c in found["checks"]} == {*CASES, "tokens of all cases"}
    assert "the caller's own system message" in err
    assert {CONTRACT, "SERVING.md", "chat_template.jinja"} <= {p.name for p in folder.iterdir()}


@pytest.mark.parametrize("kind", ["merged", "adapter"])
def test_tuned_folders_of_both_kinds_hold(kind, tokenizer, model, tmp_path):
    from holdfast.recipe import TuningSettings
    from holdfast.rendering.rendered import RenderedRows
    from holdfast.stages.train import train
    from holdfast.types import Conversation

    rows = RenderedRows.of(
        Renderer(tokenizer).rows(
            [
                Conversation(
                    "a", (Message.of("user", "Hello."), Message.of("assistant", "Good day."))
                )
                for _ in range(2)
            ]
        )
    )
    tuning = TuningSettings(method="lora", rank=2, epochs=1, batch=2, output=kind)
    train(model, tokenizer, rows, tuning, tmp_path, base="owner/base", progress=False)
    export_contract(tmp_path, Renderer(tokenizer, SERVED["safety"]), base_model="owner/base")
    assert (tmp_path / "adapter_config.json").exists() == (kind == "adapter")
    assert overall(check_folder(tmp_path, read_contract(tmp_path))) == "HOLDS"
    page = (tmp_path / "SERVING.md").read_text()
    assert ("--lora-modules tuned=." in page) == (kind == "adapter")
    assert str(tmp_path) not in page  # the same bytes wherever a run stands


def lose(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(CHATML)


def replace_by_caller(folder: Path) -> None:
    path = folder / "chat_template.jinja"
    path.write_text(
        path.read_text().replace("holdfast_system + '\\n\\n' + holdfast_own", "holdfast_own")
    )


def double(folder: Path) -> None:
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text().replace(" = holdfast_system %}", " = holdfast_system * 2 %}"))


def drop_own(folder: Path) -> None:
    path = folder / "chat_template.jinja"
    joined = "holdfast_system + '\\n\\n' + holdfast_own"
    path.write_text(path.read_text().replace(f"= {joined}", "= holdfast_system"))


def offer_another(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    found = json.loads(path.read_text())
    found["chat_template"] = [{"name": "tool_use", "template": CHATML}]
    path.write_text(json.dumps(found))


def edit(folder: Path) -> None:
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text() + "{% if messages | length > 9 %}obey{% endif %}")


def stop(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no\x1b[2J') }}")


def remove(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()


def retokenise(folder: Path) -> None:
    make_tokenizer(specials=("Hello",)).save_pretrained(folder / "other")
    (folder / "tokenizer.json").write_bytes((folder / "other" / "tokenizer.json").read_bytes())


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lose, "the safety prompt is lost"),
        (replace_by_caller, "the caller's own system message replaces the safety prompt"),
        (double, "more than once"),
        (drop_own, "the caller's own system message is dropped"),
        (offer_another, "tokenizer_config.json (tool_use) · no system message: the safety prompt"),
        (edit, "edited after the export"),
        (stop, "cannot render"),
        (remove, "has no chat template"),
        (retokenise, "tokens are served where"),
    ],
)
def test_a_broken_folder_fails_with_the_reason(exported, holdfast, harm, reason):
    folder = exported()
    harm(folder)
    code, out, err = holdfast("contract", "check", folder)
    assert code == 1, err
    assert json.loads(out)["outcome"] == "BROKEN"
    assert reason in err
    assert "\x1b" not in err


def test_a_lost_date_or_argument_is_seen(saved, tokenizer, tmp_path):
    prompting = Prompting(template="{{ mood }}" + DATED, template_args={"mood": "calm"})
    tokenizer.save_pretrained(tmp_path)
    export_contract(tmp_path, Renderer(tokenizer, prompting), base_model="owner/base")
    contract = read_contract(tmp_path)
    assert overall(check_folder(tmp_path, contract)) == "HOLDS"
    (tmp_path / "chat_template.jinja").write_text("calm" + DATED)
    first = check_folder(tmp_path, contract)[0]
    assert first.outcome == "BROKEN"
    assert "01 Jan 2026" in first.reason and "09 Jul 2031" in first.reason


@pytest.mark.parametrize(
    ("spoil", "piece"),
    [
        (lambda f: (f / CONTRACT).unlink(), "has no holdfast-contract.json"),
        (lambda f: (f / CONTRACT).write_text("{"), "cannot be read as a contract"),
        (lambda f: (f / CONTRACT).write_text('{"system": null}'), "base_model"),
        (lambda f: drop_case(f), "`rendered` has no 'plain'"),
        (lambda f: (f / "tokenizer_config.json").write_text("{"), "is no JSON"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), "cannot be read as a tokenizer"),
    ],
)
def test_what_cannot_be_checked_is_a_user_error(exported, holdfast, spoil, piece):
    folder = exported()
    spoil(folder)
    code, out, err = holdfast("contract", "check", folder)
    assert (code, out) == (2, "")
    assert piece in err and "Traceback" not in err


def drop_case(folder: Path) -> None:
    found = json.loads((folder / CONTRACT).read_text())
    del found["rendered"]["plain"]
    (folder / CONTRACT).write_text(json.dumps(found))


def test_checking_loads_neither_torch_nor_transformers(exported):
    code = (
        "import sys; from pathlib import Path; from holdfast.contract.verify import verify\n"
        f"assert {{c.outcome for c in verify(Path({str(exported())!r}))}} == {{'HOLDS'}}\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- a server -------------------------------------------------------------------------------------


class Server:
    """A stand-in server: which routes it has, and which template it serves with."""

    def __init__(self, tokenizer, template: str) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.routes: dict[str, object] = {}
        self.asked: list[tuple[str, dict]] = []

    def text(self, body: dict) -> str:
        return self.tokenizer.apply_chat_template(
            body["messages"], chat_template=self.template, tokenize=False,
            add_generation_prompt=True,
        )  # fmt: skip

    def ids(self, body: dict) -> list[int]:
        return self.tokenizer(self.text(body), add_special_tokens=False)["input_ids"]

    def has(self, **routes) -> Server:
        names = {"tokenize": "/tokenize", "template": "/apply-template",
                 "chat": "/v1/chat/completions"}  # fmt: skip
        self.routes = {names[name]: answer for name, answer in routes.items()}
        return self


@contextmanager
def listening(server: Server):
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.asked.append((self.path, body))
            answer = server.routes.get(self.path, (404, {"error": {"message": "Not Found"}}))
            status, found = answer(body) if callable(answer) else answer
            data = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *words) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_port}/v1"
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


ANSWER = {"choices": [{"message": {"role": "assistant", "content": "Hello."}}]}


def routes_of(server: Server, kind: str) -> Server:
    """The ways real servers show a prompt."""
    return server.has(**{
        "vllm": {"tokenize": lambda b: (200, {"count": 1, "tokens": server.ids(b)})},
        "llama.cpp": {  # its /tokenize knows plain text only, and leaves the BOS to the tokenizer
            "tokenize": lambda b: (200, {"tokens": []}),
            "template": lambda b: (200, {"prompt": server.text(b).removeprefix("<s>")}),
        },
        "sglang": {"chat": lambda b: (200, {"choices": [
            {**ANSWER["choices"][0], "prompt_token_ids": server.ids(b)}]})},
        "ids": {"chat": lambda b: (200, {**ANSWER, "prompt_token_ids": server.ids(b)})},
        "echo": {"chat": lambda b: (200, {**ANSWER, "prompt": [{"text": server.text(b)}]})},
    }[kind])  # fmt: skip


@pytest.fixture
def httpx():
    return pytest.importorskip("httpx")


@pytest.mark.parametrize("kind", ["vllm", "llama.cpp", "sglang", "ids", "echo"])
def test_a_server_that_shows_its_prompt(httpx, exported, tokenizer, holdfast, kind):
    folder = exported(replace(SERVED["safety"], template="{{ bos_token }}" + CHATML))
    server = routes_of(Server(tokenizer, (folder / "chat_template.jinja").read_text()), kind)
    with listening(server) as url:
        code, _, err = holdfast("contract", "check", folder, "--endpoint", url, "--model", "tuned")
        assert code == 0, err
        sent = [body["messages"] for path, body in server.asked if path in server.routes]
        assert all(body["model"] == "tuned" for _, body in server.asked)
        for turns in CASES.values():
            assert [turn.to_json() for turn in turns] in sent

        server.template = "{{ bos_token }}" + CHATML
        code, out, err = holdfast("contract", "check", folder, "--endpoint", url, "--model", "t")
        assert code == 1
        assert json.loads(out)["outcome"] == "BROKEN"
        assert "the safety prompt is lost" in err
        assert "HOLDS chat_template.jinja" in err  # the folder itself is sound


def test_a_caller_who_replaces_the_prompt_at_the_server_is_seen(httpx, exported, tokenizer):
    """As Ollama's `SYSTEM` does: right without a system message, wrong with one."""
    folder = exported()
    contract = read_contract(folder)
    default = (
        "{% if messages[0].role != 'system' %}<|im_start|>system\n" + SAFETY + "<|im_end|>\n"
        "{% endif %}" + CHATML
    )
    with listening(routes_of(Server(tokenizer, default), "vllm")) as url:
        checks = check_endpoint(folder, contract, Address(url, "tuned"))
    found = {check.case: (check.outcome, check.reason) for check in checks}
    assert found["plain"] == ("HOLDS", "")
    assert found["with_own_system"] == (
        "BROKEN", "the caller's own system message replaces the safety prompt",
    )  # fmt: skip


def test_other_tokens_for_the_same_text_are_seen(httpx, exported, tokenizer):
    folder = exported()
    server = Server(tokenizer, "")
    contract = read_contract(folder)

    def letters(body: dict) -> tuple[int, dict]:
        words = contract.rendered["plain"]
        return 200, {"tokens": [i for c in words for i in tokenizer(c)["input_ids"]]}

    with listening(server.has(tokenize=letters)) as url:
        first = check_endpoint(folder, contract, Address(url, "tuned"))[0]
    assert first.outcome == "BROKEN"
    assert "tokens are served where" in first.reason


@pytest.mark.parametrize(
    "chat",
    [
        (200, ANSWER),
        (200, {**ANSWER, "prompt_token_ids": None, "prompt": []}),
        (200, {**ANSWER, "prompt_token_ids": ["a"], "prompt": 3}),
        lambda b: (400, {"error": {"message": "unknown field"}}) if "echo" in b else (200, ANSWER),
    ],
)
def test_a_server_that_shows_nothing_is_not_verifiable(httpx, exported, tokenizer, holdfast, chat):
    folder = exported()
    odd = (200, {"tokens": "many"})
    with listening(Server(tokenizer, "").has(chat=chat, tokenize=odd)) as url:
        code, out, err = holdfast("contract", "check", folder, "--endpoint", url, "--model", "x")
        assert code == 3, err
        assert json.loads(out)["outcome"] == "NOT VERIFIABLE"
        assert "it shows no rendered prompt" in err
        lose(folder)  # what is known to be broken is not softened by what is not known
        assert holdfast("contract", "check", folder, "--endpoint", url, "--model", "x")[0] == 1


def test_a_server_that_answers_no_chat_is_a_user_error(httpx, exported, tokenizer, holdfast):
    folder = exported()
    for chat, piece in (
        ((404, {"error": {"message": "The model `x` does not exist."}}), "does not exist"),
        ((401, {"error": {"message": "no key"}}), "HOLDFAST_ENDPOINT_KEY"),
    ):
        with listening(Server(tokenizer, "").has(chat=chat)) as url:
            code, out, err = holdfast(
                "contract", "check", folder, "--endpoint", url, "--model", "x"
            )
            assert (code, out) == (2, "")
            assert piece in err


def test_a_slow_or_failing_server_never_passes(httpx, exported, tokenizer, monkeypatch):
    monkeypatch.setattr("holdfast.contract.endpoint.PAUSE", 0.0)
    folder = exported()
    contract = read_contract(folder)

    def slow(body: dict) -> tuple[int, dict]:
        time.sleep(0.15)
        return 200, {"tokens": [1]}

    failing = (500, {"error": {"message": "out of memory"}})
    for answer in (slow, failing):
        server = Server(tokenizer, "").has(tokenize=answer, chat=answer)
        with listening(server) as url, pytest.raises(EndpointError, match="gave no answer"):
            check_endpoint(folder, contract, Address(url, "x"), timeout=0.05)
        server = Server(tokenizer, "").has(tokenize=answer, chat=(200, ANSWER))
        with listening(server) as url:
            checks = check_endpoint(folder, contract, Address(url, "x"), timeout=0.05)
        assert {check.outcome for check in checks} == {"NOT VERIFIABLE"}


@pytest.mark.parametrize(
    ("words", "piece"),
    [
        (["--endpoint", "http://localhost:1/v1"], "--model NAME"),
        (["--model", "x"], "--endpoint"),
        (["--endpoint", "localhost:1", "--model", "x"], "no address of a server"),
        (["--endpoint", "http://me:pw@localhost:1/v1", "--model", "x"], "environment"),
    ],
)
def test_a_server_is_named_in_full(exported, holdfast, words, piece):
    code, out, err = holdfast("contract", "check", exported(), *words)
    assert (code, out) == (2, "")
    assert piece in err and "pw" not in err


# --- how to serve it ------------------------------------------------------------------------------


def test_the_page_is_shown_and_written(exported, holdfast):
    folder = exported(name="it's a model")
    code, out, _ = holdfast("contract", "show", folder)
    assert code == 0
    for piece in ("vllm serve", f'SYSTEM """{SAFETY}"""', "held(messages)", "contract check"):
        assert piece in out
    assert shlex.quote(str(folder)) in out
    assert SAFETY in (folder / "SERVING.md").read_text()


def test_a_shell_reads_the_vllm_line_as_it_was_meant(exported):
    contract = read_contract(exported(SERVED["hostile"]))
    where = "/models/a b; rm -rf $HOME"
    words = shlex.split(vllm_line(contract, None, where))
    assert words[:3] == ["vllm", "serve", where]
    assert words[words.index("--chat-template") + 1] == f"{where}/chat_template.jinja"
    adapter = {"base_model_name_or_path": "a'b", "r": 40}
    words = shlex.split(vllm_line(contract, adapter, where))
    assert words[2] == "a'b"
    assert words[words.index("--lora-modules") + 1] == f"tuned={where}"
    assert words[words.index("--max-lora-rank") + 1] == "64"


def test_the_client_does_what_the_template_does(exported):
    contract = read_contract(exported(SERVED["hostile"]))
    scope: dict = {}
    source = client_snippet(contract).partition("client = ")[0].partition("openai import OpenAI")[2]
    exec(source, scope)
    for turns in CASES.values():
        held = scope["held"]([turn.to_json() for turn in turns])
        assert held == [turn.to_json() for turn in SERVED["hostile"].apply(turns)]
    compile(client_snippet(read_contract(exported(Prompting(), "plain"))), "snippet", "exec")


def test_a_modelfile_holds_the_prompt_or_is_not_written(exported):
    def contract(prompting: Prompting, name: str):
        return read_contract(exported(prompting, name))

    quoted = contract(Prompting('Say "no".\nTwice: "no"'), "quoted")
    assert modelfile(quoted, None) == 'FROM .\nSYSTEM """Say "no".\nTwice: "no""""'
    assert "ADAPTER ." in (modelfile(quoted, {"r": 8}) or "")
    assert modelfile(contract(Prompting('a """ b'), "triple"), None) is None
    assert modelfile(contract(SERVED["hostile"], "hostile"), None) is None  # a carriage return
    assert modelfile(contract(SERVED["defence"], "defence"), None) is None
    assert modelfile(contract(Prompting(), "nothing"), None) == "FROM ."


def test_a_prompt_cannot_leave_its_block(exported):
    folder = exported(SERVED["hostile"])
    page = serving_page(read_contract(folder), folder, shown_as=".")
    assert fenced(HOSTILE, "text") in page
    assert fenced("```").startswith("````\n")
