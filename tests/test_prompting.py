"""What stands around a conversation: ours at once, published prompts once fetched, files always."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from holdfast.errors import DataError, MaterialError, RecipeError
from holdfast.job.setup import set_up
from holdfast.mitigations import MITIGATIONS, PlanContext
from holdfast.recipe import build_recipe
from holdfast.rendering.prompting import (
    DEMONSTRATIONS,
    REMINDERS,
    SAFETY_PROMPTS,
    Prompting,
    add_demonstrations,
    add_reminder,
)
from holdfast.rendering.published import (
    PUBLISHED_REMINDERS,
    SYSTEM_PROMPTS,
    Constant,
    constant_of,
    demonstrations,
    licences,
    reminder,
    system_prompt,
)
from holdfast.rendering.render import IGNORE, Renderer
from holdfast.rows import sources
from holdfast.tasks import TaskContext
from holdfast.types import Conversation, Message

NOWHERE = TaskContext()
ASK, TELL, AGAIN = (
    Message.of("user", "How?"), Message.of("assistant", "So."), Message.of("user", "And then?"),
)  # fmt: skip


def words(turns: tuple[Message, ...]) -> list[tuple[str, str]]:
    return [(turn.role, turn.content) for turn in turns]


# --- around a conversation ------------------------------------------------------------------------


def test_nothing_changes_nothing() -> None:
    turns = (Message.of("system", "Own."), ASK, TELL, AGAIN)
    assert Prompting().apply(turns) == turns
    assert Prompting().apply(()) == ()


def test_a_reminder_stands_around_the_last_request_only() -> None:
    prompting = Prompting(prefix="<", suffix=">")
    assert words(prompting.apply((ASK, TELL, AGAIN))) == [
        ("user", "How?"), ("assistant", "So."), ("user", "<And then?>"),
    ]  # fmt: skip
    assert words(prompting.apply((TELL,))) == [("assistant", "So.")]


def test_everything_has_its_place() -> None:
    shown = (Message.of("user", "Bad?"), Message.of("assistant", "No.", "none"))
    prompting = Prompting("Ours.", prefix="<", suffix=">", demonstrations=shown)
    assert words(prompting.apply((Message.of("system", "Own."), ASK))) == [
        ("system", "Ours.\n\nOwn."), ("user", "Bad?"), ("assistant", "No."), ("user", "<How?>"),
    ]  # fmt: skip
    assert words(replace(prompting, system=None).apply((ASK,)))[0] == ("user", "Bad?")


def test_each_part_is_in_the_fingerprint() -> None:
    shown = (Message.of("user", "Bad?"), Message.of("assistant", "No.", "none"))
    plain = Prompting()
    others = [
        plain,
        replace(plain, prefix="x"),
        replace(plain, suffix="x"),
        replace(plain, demonstrations=shown),
        replace(plain, demonstrations=shown[:1]),
        replace(plain, system="x"),
    ]
    assert len({p.fingerprint for p in others}) == len(others)


def test_reminders_nest_and_demonstrations_follow_each_other() -> None:
    inner = add_reminder(Prompting(prefix="a", suffix="z"), Prompting(prefix="b", suffix="y"))
    assert words(inner.apply((ASK,))) == [("user", "abHow?yz")]
    shown = demonstrations("holdfast-context-defence")
    twice = add_demonstrations(shown, shown)
    assert len(twice.demonstrations) == 2 * len(shown.demonstrations)


def test_demonstrations_carry_no_loss(tokenizer) -> None:
    prompting = demonstrations("holdfast-context-defence")
    (row,) = Renderer(tokenizer, prompting).rows([Conversation("1", (ASK, TELL))])
    trained = tokenizer.decode([t for t in row.labels if t != IGNORE])
    assert trained == "So.<|im_end|>"
    assert "Sorry" in tokenizer.decode(row.input_ids)


# --- ours -----------------------------------------------------------------------------------------


def test_ours_work_at_once() -> None:
    for name, text in SAFETY_PROMPTS.items():
        assert name.startswith("holdfast-") and system_prompt(name, NOWHERE) == text
    for name in REMINDERS:
        found = reminder(name, NOWHERE)
        assert name.startswith("holdfast-") and found.prefix.strip() and found.suffix.strip()
    for name in DEMONSTRATIONS:
        roles = [turn.role for turn in demonstrations(name).demonstrations]
        assert name.startswith("holdfast-") and roles[:2] == ["user", "assistant"]


def test_our_demonstrated_replies_are_refusals() -> None:
    from holdfast.judges import judge
    from holdfast.types import Attempt

    for pairs in DEMONSTRATIONS.values():
        for request, reply in pairs:
            attempt = Attempt(
                "a", "1", "t", "refuse", "direct", "plain/serve/chat/0", 0, request, "", "", reply,
                False, 5,
            )  # fmt: skip
            assert judge("refusal").judge([attempt])[0].label == "full_refusal"


def test_a_system_prompt_is_a_text_a_file_or_nothing(tmp_path: Path) -> None:
    assert system_prompt(None, NOWHERE) is None
    assert system_prompt("Answer in rhyme.", NOWHERE) == "Answer in rhyme."
    assert system_prompt("Kurz.", NOWHERE) == "Kurz."
    path = tmp_path / "mine.txt"
    path.write_text("From a file.\n")
    assert system_prompt(str(path), NOWHERE) == "From a file."


def test_what_is_nearly_a_name_is_an_error() -> None:
    with pytest.raises(RecipeError, match=r"no system prompt 'llama2-default'.*llama-2-default"):
        system_prompt("llama2-default", NOWHERE)
    with pytest.raises(RecipeError, match=r"neither a known name nor a file.*'self-reminder'"):
        reminder("selfreminder", NOWHERE)
    with pytest.raises(RecipeError, match=r"neither a known name nor a file of rows"):
        demonstrations("in-context-defence")


@pytest.mark.parametrize("content", [None, b"", b"  \n", b"\xff\xfe\xfa"])
def test_a_file_that_holds_no_prompt_is_an_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "mine.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecipeError, match=r"mine\.txt cannot be used"):
        system_prompt(str(path), NOWHERE)


def test_a_reminder_from_a_file_says_where_the_request_goes(tmp_path: Path) -> None:
    path = tmp_path / "reminder.txt"
    path.write_text("First. {request} Last. {not_a_slot}")
    found = reminder(str(path), NOWHERE)
    assert (found.prefix, found.suffix) == ("First. ", " Last. {not_a_slot}")
    path.write_text("No place for it.")
    with pytest.raises(RecipeError, match=r"write \{request\} in its place"):
        reminder(str(path), NOWHERE)


def test_demonstrations_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "demonstrations.jsonl"
    rows = [{"prompt": "Bad?", "completion": "No."}, {"prompt": "Worse?", "completion": "Never."}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = demonstrations(str(path)).demonstrations
    assert [turn.content for turn in found] == ["Bad?", "No.", "Worse?", "Never."]
    assert all(segment.loss == "none" for turn in found for segment in turn.segments)


# --- published ------------------------------------------------------------------------------------

SOURCE = """
NAME = "one line"
BROKEN = "one " + str(2)
LISTED = ["Before.\\n{}\\nAfter.", "other"]
"""


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TaskContext:
    """A data folder with files of the published ones' form, in words of ours."""
    ptst = "".join(f"{c.name} = 'stand-in for {n}'\n" for n, c in SYSTEM_PROMPTS.items())
    own = {"ptst-prompts": ptst, "self-reminder-prompts": "defense_templates = ['P {} S']\n"}
    for name, text in own.items():
        path = tmp_path / sources.get(name).files[0]
        path.parent.mkdir(parents=True)
        path.write_text(text)
    return TaskContext(tmp_path)


def test_published_prompts_are_read_once_fetched(stand_ins: TaskContext) -> None:
    for name in SYSTEM_PROMPTS:
        assert system_prompt(name, stand_ins) == f"stand-in for {name}"
    for name in PUBLISHED_REMINDERS:
        found = reminder(name, stand_ins)
        assert (found.prefix, found.suffix) == ("P ", " S")


def test_a_published_prompt_is_pinned_on_first_use(stand_ins: TaskContext) -> None:
    assert stand_ins.data_dir is not None
    system_prompt("llama-2-default", stand_ins)
    path = stand_ins.data_dir / sources.get("ptst-prompts").files[0]
    path.write_text("LLAMA_BASE_PROMPT = 'changed'\n")
    with pytest.raises(MaterialError, match="has changed since"):
        system_prompt("llama-2-default", stand_ins)


@pytest.mark.parametrize("name", [*SYSTEM_PROMPTS, *PUBLISHED_REMINDERS])
def test_until_then_they_are_unavailable_and_say_the_cure(name: str, tmp_path: Path) -> None:
    read = reminder if name in PUBLISHED_REMINDERS else system_prompt
    for context in (NOWHERE, TaskContext(tmp_path), TaskContext(tmp_path, offline=True)):
        with pytest.raises(MaterialError) as error:
            read(name, context)
        message = str(error.value)
        assert message.startswith(f"The published prompt {name!r} is not at hand.")
        assert "holdfast fetch " in message and "FILE.txt" in message


def test_their_sources_are_pinned_to_a_revision_and_fetched_together() -> None:
    constants = {**SYSTEM_PROMPTS, **PUBLISHED_REMINDERS}
    named = {constant.source for constant in constants.values()}
    assert set(sources.expand(["prompts"])) == named
    for name in named:
        assert len(sources.get(name).revision) == 40
    assert licences(["llama-2-default", "a text", "holdfast-default"]) == {
        "llama-2-default": sources.get("ptst-prompts").licence
    }


def test_a_program_file_is_read_and_never_run(tmp_path: Path) -> None:
    path, ran = tmp_path / "prompts.py", tmp_path / "ran"
    path.write_text(f"open({str(ran)!r}, 'w')\n{SOURCE}")
    assert constant_of(path, Constant("s", "NAME")) == "one line"
    assert constant_of(path, Constant("s", "LISTED", 0)) == "Before.\n{}\nAfter."
    assert not ran.exists()


@pytest.mark.parametrize(
    "constant", [Constant("s", "NONE"), Constant("s", "BROKEN"), Constant("s", "LISTED", 9),
                 Constant("s", "LISTED"), Constant("s", "NAME", None)],
)  # fmt: skip
def test_a_source_of_another_form_is_an_error(tmp_path: Path, constant: Constant) -> None:
    path = tmp_path / "prompts.py"
    path.write_text("def (" if constant.name == "NAME" else SOURCE)
    with pytest.raises(DataError, match="has changed its form"):
        constant_of(path, constant)


# --- as mitigations -------------------------------------------------------------------------------


def test_the_mitigations_touch_serving_only() -> None:
    defences = replace(
        reminder("holdfast-reminder", NOWHERE),
        demonstrations=demonstrations("holdfast-context-defence").demonstrations,
    )
    context = PlanContext([], "Be safe.", 900, defences=defences)
    before = Prompting("Own.")
    for name in ("self_reminder", "context_defence"):
        made = MITIGATIONS.get(name)()
        assert made.data(context) == []
        assert made.train(before, context) == before
        assert made.serve(before, context) != before
    reminded = MITIGATIONS.get("self_reminder")().serve(before, context)
    assert reminded.prefix == defences.prefix and not reminded.demonstrations
    shown = MITIGATIONS.get("context_defence")().serve(before, context)
    assert shown.demonstrations == defences.demonstrations and not shown.prefix


def test_a_recipe_names_them() -> None:
    least = {"model": "lab:chat", "data": "lab:howto", "run": "r"}
    setup = set_up(build_recipe({**least, "mitigations": ["self_reminder", "context_defence"]}))
    assert setup.defences.prefix and setup.defences.demonstrations
    assert set_up(build_recipe({**least, "mitigations": []})).defences == Prompting()
    published = {**least, "prompting": {"safety": "llama-2-default"}}
    with pytest.raises(MaterialError, match="holdfast fetch ptst-prompts"):
        set_up(build_recipe(published))


def test_the_manifest_names_the_terms_of_published_prompts_that_are_used() -> None:
    from holdfast.job.manifest import _prompts

    least = {"model": "m", "data": "d", "run": "r"}
    prompting = {"safety": "llama-2-default", "reminder": "self-reminder"}
    recipe = build_recipe({**least, "prompting": prompting})
    assert [name for name, _ in _prompts(recipe)] == ["llama-2-default"]
    reminding = build_recipe({**least, "prompting": prompting, "mitigations": ["self_reminder"]})
    assert [name for name, _ in _prompts(reminding)] == ["llama-2-default", "self-reminder"]
    assert not list(_prompts(build_recipe(least)))
