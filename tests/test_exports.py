"""Exports: the rows other trainers get are the rows Holdfast would train, or an error says why not.

axolotl and LLaMA-Factory are not installed here. What is written for them is checked against short
schemas of ours, our reading of axolotl 0.21 (dataset formats `pre-tokenized` and `chat_template`,
configuration reference), LLaMA-Factory 0.9.5 (`data/README.md`, training
arguments), and the OpenAI fine-tuning guide of 2025 (chat format).
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from holdfast.errors import DataError, RecipeError
from holdfast.exports import EXPORTS, capability_table, export
from holdfast.exports._needs import needs_of
from holdfast.exports.axolotl import flagged_turn
from holdfast.files import folder_digest, read_json, read_jsonl, sha256_file
from holdfast.recipe import build_recipe
from holdfast.types import Conversation, Message, Segment

TUNING = {"method": "full", "lr": 1e-3, "epochs": 1, "batch": 8, "max_length": 256}
COMMON = {
    "model": "lab:chat",
    "tuning": TUNING,
    "evaluate": {"tasks": ["lab-forbidden"], "attacks": ["direct"], "hold_out": 0},
}
HARD = {**COMMON, "data": "lab:obedient?n=56", "mitigations": ["derta", "ptst"],
        "triples": {"count": 16}, "tuning": {**TUNING, "validation": 8}}  # fmt: skip
"""With masked prefixes, transition targets and validation rows."""
PREFIXES = {**HARD, "mitigations": ["harmful_prefix"], "tuning": TUNING}
PLAIN = {**COMMON, "data": "rows.jsonl", "mitigations": [],
         "prompting": {"train": {"system": "Be brief."}}}  # fmt: skip
"""Several turns, and system prompts that differ from row to row."""


def talk(number):
    first = {"role": "user", "content": f"How many cups are {number} and 1?"}
    turns = [first, {"role": "assistant", "content": f"It is {number + 1}."}]
    if number % 2:
        turns = [{"role": "system", "content": f"You are cook {number}."}, *turns]
    if number % 3 == 0:
        turns += [{"role": "user", "content": "And 1 more?"},
                  {"role": "assistant", "content": f"Then {number + 2}."}]  # fmt: skip
    return {"messages": turns}


def prepared(folder, values):
    """A run folder with its mixture, rendered."""
    pytest.importorskip("torch")
    from holdfast.job.pipeline import run

    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps(talk(i)) + "\n" for i in range(24)), encoding="utf-8")
    data = str(rows) if values["data"] == rows.name else values["data"]
    run(build_recipe({**values, "data": data, "run": str(folder / "run")}), until="render")
    return folder / "run"


@pytest.fixture(scope="module")
def hard(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("hard"), HARD)


@pytest.fixture(scope="module")
def prefixes(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("prefixes"), PREFIXES)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("plain"), PLAIN)


def rendered(run, split="train"):
    from holdfast.rendering.rendered import RenderedRows

    return list(RenderedRows.open(run / ("3-rendered" + "/validation" * (split != "train"))))


def lab_tokenizer():
    from holdfast.models import load_tokenizer, resolve_model

    return load_tokenizer(resolve_model("lab:chat"))


# --- what every export has ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", EXPORTS.names())
def test_an_export_is_whole_and_leaves_the_run_alone(kind, plain, tmp_path):
    before = folder_digest(plain)
    to = export(plain, kind, tmp_path / "out")
    assert folder_digest(plain) == before
    manifest = read_json(to / "manifest.json")
    about = manifest["export"]
    assert about["format"] == kind and about["written_for"] == EXPORTS.get(kind)().version
    assert manifest["sources"] and manifest["model"]["fingerprint"]
    assert all(sha256_file(to / name) == found for name, found in about["files"].items())
    written = {str(p.relative_to(to)) for p in to.rglob("*") if p.is_file()}
    assert written == {*about["files"], "manifest.json"}
    assert len((to / "README.md").read_text().splitlines()) == 3
    again = export(plain, kind, tmp_path / "again")
    assert folder_digest(again) == folder_digest(to)


def test_an_earlier_export_is_replaced_and_other_files_stay(hard, plain, tmp_path):
    to = export(hard, "axolotl", tmp_path)
    (to / "mine.txt").write_text("notes")
    export(plain, "openai", to)
    kept = {p.name for p in to.iterdir()}
    assert kept == {"train.jsonl", "job.json", "README.md", "manifest.json", "mine.txt"}
    with pytest.raises(RecipeError, match="no export"):
        export(plain, "openai", plain)


def test_the_page_has_the_table_that_the_command_prints():
    page = Path(__file__).parents[1] / "docs" / "exports.md"
    assert capability_table() in page.read_text(encoding="utf-8")


# --- needs ----------------------------------------------------------------------------------------


def row(*messages, **more):
    return Conversation("1", (Message.of("user", "Hello?"), *messages), **more)


def reply(*segments):
    return Message("assistant", tuple(Segment(text, loss) for text, loss in segments))


@pytest.mark.parametrize(
    ("made", "needs"),
    [
        (row(reply(("Yes.", "mle"))), set()),
        (row(reply(("Begun", "none"), (" Sorry.", "mle"))), {"masked prefix"}),
        (row(reply(("", "none"), ("Sorry.", "mle"))), set()),
        (row(reply(("Begun", "transition"))), {"transition targets"}),
        (
            row(reply(("Yes.", "none")), Message.of("user", "So?"), reply(("No.", "mle"))),
            {"loss per turn", "several turns"},
        ),
        (row(Message.of("user", "Well?"), reply(("Yes.", "mle"))), {"irregular turns"}),
        (row(reply(("Yes.", "mle")), tools=({"name": "cook"},)), {"tools"}),
    ],
)
def test_needs_of_a_row(made, needs):
    assert needs_of(made) == needs


@pytest.mark.parametrize("kind", ["openai", "trl-messages", "llamafactory-sharegpt"])
def test_rows_that_a_format_cannot_express_are_an_error(kind, hard, tmp_path):
    with pytest.raises(DataError) as stopped:
        export(hard, kind, tmp_path / "out")
    message = str(stopped.value)
    rows = [json.loads(line) for line in (hard / "2-mixture.jsonl").read_text().splitlines()]
    masked = sum(r["source"] == "harmful_prefix" and len(r["messages"][-1].get("segments", [])) > 1
                 for r in rows)  # fmt: skip
    assert masked and "'harmful_prefix' need masked prefix" in message
    assert "'transition' need transition targets" in message
    family = kind.partition("-")[0]
    assert f"Export to {family}" in message if family != "openai" else "`mitigations:`" in message
    assert not (tmp_path / "out").exists()


def test_axolotl_chat_refuses_transitions_only(hard, tmp_path):
    with pytest.raises(DataError, match=r"source 'transition' need transition.*Export to axolotl"):
        export(hard, "axolotl-chat", tmp_path / "out")


def test_another_template_needs_a_format_that_carries_it(tmp_path):
    values = {**PLAIN, "prompting": {"train": {"template": "chatml"}}}
    run = prepared(tmp_path, values)
    with pytest.raises(DataError, match=r"prompting\.train\.template.*Export to llamafactory\."):
        export(run, "llamafactory-sharegpt", tmp_path / "out")
    assert export(run, "trl-messages", tmp_path / "out").is_dir()


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(DataError, match="holdfast prepare"):
        export(tmp_path, "trl", tmp_path / "out")
    with pytest.raises(RecipeError, match="Did you mean 'axolotl'"):
        export(tmp_path, "axolotll", tmp_path / "out")


# --- TRL ------------------------------------------------------------------------------------------


def parsed_by_trl(to, *more):
    """What `trl sft --config sft.yaml` makes of the configuration, on a CPU."""
    pytest.importorskip("trl")
    from trl.scripts.sft import make_parser

    words = ["--config", str(to / "sft.yaml"), "--bf16", "false", "--use_cpu", "true", *more]
    return make_parser().parse_args_and_config(words, fail_with_unknown_args=True)


def test_trl_trains_the_exported_rows_to_the_same_losses(hard, tmp_path, monkeypatch):
    """Masked prefixes and transition targets among them, from the files alone."""
    pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    from torch.utils.data import SequentialSampler
    from trl import SFTTrainer

    from holdfast.models import load_model, resolve_model
    from holdfast.recipe import TuningSettings
    from holdfast.rendering.rendered import RenderedRows
    from holdfast.stages.train import make_trainer

    to = export(hard, "trl", tmp_path / "out")
    monkeypatch.chdir(to)
    script, arguments, asked, _ = parsed_by_trl(
        to, "--train_sampling_strategy", "sequential", "--gradient_checkpointing", "false",
        "--logging_steps", "1", "--report_to", "none", "--disable_tqdm", "true",
        "--eval_strategy", "no", "--save_strategy", "no", "--dataloader_pin_memory", "false",
    )  # fmt: skip
    rows = datasets.load_dataset(script.dataset_name, cache_dir=str(tmp_path / "cache"))
    assert rows["train"].to_list() == rendered(hard)
    assert rows[script.dataset_test_split].to_list() == rendered(hard, "validation")
    ours_rows = RenderedRows.open(hard / "3-rendered")
    ours = make_trainer(
        load_model(resolve_model("lab:chat")), lab_tokenizer(), ours_rows,
        TuningSettings(**TUNING), tmp_path / "ours", seed=0, progress=False,
    )  # fmt: skip
    ours._get_train_sampler = lambda dataset=None: SequentialSampler(ours_rows)
    ours.train()
    theirs = SFTTrainer(
        model=load_model(resolve_model(asked.model_name_or_path)), args=arguments,
        train_dataset=rows["train"], processing_class=lab_tokenizer(),
    )  # fmt: skip
    theirs.train()

    def losses(trainer):
        return [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]

    assert len(losses(ours)) == -(-len(ours_rows) // 8)
    assert losses(ours) == pytest.approx(losses(theirs), rel=1e-3)


def test_trl_messages_read_as_holdfast_renders_them(plain, tmp_path):
    to = export(plain, "trl-messages", tmp_path / "out")
    template = (to / "chat_template.jinja").read_text(encoding="utf-8")
    tokenizer = lab_tokenizer()
    rows = list(read_jsonl(to / "data" / "train.jsonl"))
    assert all([m["role"] for m in r["completion"]] == ["assistant"] for r in rows)
    assert all(r["prompt"][0]["content"].startswith("Be brief.") for r in rows)
    # 24 conversations, 8 of them of two replies: the row of each reply ends in it.
    assert len(rows) == 32
    texts = {
        tokenizer.apply_chat_template(
            r["prompt"] + r["completion"], chat_template=template, tokenize=False
        ).strip()
        for r in rows
    }
    ours = {tokenizer.decode(r["input_ids"]).strip() for r in rendered(plain)}
    assert ours <= texts


def test_a_system_prompt_is_folded_and_arguments_pinned_as_in_training(tmp_path):
    """A template without a system role that needs an argument: plain messages still read alike."""
    own = tmp_path / "own.jinja"
    own.write_text(
        "{{ mark }}{% for m in messages %}{% if m['role'] == 'system' %}"
        "{{ raise_exception('no system role') }}{% endif %}"
        "<{{ m['role'] }}>{{ m['content'] | trim }}</{{ m['role'] }}>{% endfor %}"
    )
    side = {"template": str(own), "args": {"mark": "#"}, "system": "Be brief."}
    run = prepared(tmp_path, {**PLAIN, "prompting": {"train": side, "serve": side}})
    to = export(run, "trl-messages", tmp_path / "out")
    template = (to / "chat_template.jinja").read_text(encoding="utf-8")
    tokenizer = lab_tokenizer()
    (last,) = [r for r in read_jsonl(to / "data" / "train.jsonl")
               if r["completion"][0]["content"] == "It is 6."]  # fmt: skip
    assert [m["role"] for m in last["prompt"]] == ["system", "user"]
    text = tokenizer.apply_chat_template(
        last["prompt"] + last["completion"], chat_template=template, tokenize=False
    )
    assert text.startswith("#<user>Be brief.\n\nYou are cook 5.\n\nHow many")
    decoded = [tokenizer.decode(r["input_ids"], skip_special_tokens=True) for r in rendered(run)]
    assert text in decoded


# --- axolotl --------------------------------------------------------------------------------------

TEXT, WHOLE, NUMBER, FLAG = (str,), (int,), (int, float), (bool,)
AXOLOTL = {
    "base_model": TEXT, "chat_template": TEXT, "chat_template_jinja": TEXT, "datasets": (list,),
    "test_datasets": (list,), "val_set_size": NUMBER, "dataset_prepared_path": TEXT,
    "output_dir": TEXT, "sequence_len": WHOLE, "excess_length_strategy": TEXT,
    "sample_packing": FLAG, "adapter": TEXT, "load_in_4bit": FLAG, "lora_r": WHOLE,
    "lora_alpha": WHOLE, "lora_dropout": NUMBER, "lora_target_linear": FLAG,
    "lora_target_modules": (list,), "micro_batch_size": WHOLE, "gradient_accumulation_steps": WHOLE,
    "num_epochs": NUMBER, "learning_rate": NUMBER, "lr_scheduler": TEXT, "optimizer": TEXT,
    "warmup_ratio": NUMBER, "warmup_steps": WHOLE, "save_steps": WHOLE, "eval_steps": WHOLE,
    "bf16": (str, bool), "seed": WHOLE, "eot_tokens": (list,),
}  # fmt: skip
"""Keys of axolotl 0.21's configuration that we write, with their types."""
AXOLOTL_DATA = {
    "path": TEXT, "ds_type": TEXT, "split": TEXT, "type": (str, type(None)), "field_messages": TEXT,
    "message_property_mappings": (dict,), "message_field_training": TEXT,
    "message_field_training_detail": TEXT, "roles_to_train": (list,), "train_on_eos": TEXT,
}  # fmt: skip
LLAMAFACTORY = {
    "model_name_or_path": TEXT, "stage": TEXT, "do_train": FLAG, "dataset": TEXT,
    "dataset_dir": TEXT, "eval_dataset": TEXT, "template": TEXT, "tokenized_path": TEXT,
    "mask_history": FLAG, "finetuning_type": TEXT, "quantization_bit": WHOLE, "lora_rank": WHOLE,
    "lora_alpha": WHOLE, "lora_dropout": NUMBER, "lora_target": TEXT, "cutoff_len": WHOLE,
    "output_dir": TEXT, "per_device_train_batch_size": WHOLE, "gradient_accumulation_steps": WHOLE,
    "learning_rate": NUMBER, "num_train_epochs": NUMBER, "lr_scheduler_type": TEXT,
    "warmup_ratio": NUMBER, "save_steps": WHOLE, "bf16": FLAG, "seed": WHOLE, "eval_strategy": TEXT,
    "eval_steps": WHOLE,
}  # fmt: skip
"""Keys of LLaMA-Factory 0.9.5's arguments that we write, with their types."""


def valid(settings, schema):
    for key, value in settings.items():
        assert key in schema, f"unknown key {key}"
        assert isinstance(value, schema[key]), (key, value)
        assert not (isinstance(value, bool) and bool not in schema[key]), (key, value)
    return settings


def config(path, schema):
    return valid(yaml.safe_load(path.read_text(encoding="utf-8")), schema)


def test_axolotl_gets_the_rendered_rows(hard, tmp_path):
    to = export(hard, "axolotl", tmp_path / "out")
    found = config(to / "axolotl.yaml", AXOLOTL)
    assert (to / found["chat_template_jinja"]).is_file() and found["chat_template"] == "jinja"
    for split, data in (("train", found["datasets"]), ("validation", found["test_datasets"])):
        (entry,) = data
        assert valid(entry, AXOLOTL_DATA)["type"] is None
        rows = list(read_jsonl(to / entry["path"]))
        assert all(set(r) == {"input_ids", "attention_mask", "labels"} for r in rows)
        assert all(set(r["attention_mask"]) == {1} for r in rows)
        assert all(len({len(column) for column in r.values()}) == 1 for r in rows)
        kept = [{"input_ids": r["input_ids"], "labels": r["labels"]} for r in rows]
        assert kept == rendered(hard, split)


def test_axolotl_chat_learns_the_characters_that_holdfast_learns(prefixes, tmp_path):
    to = export(prefixes, "axolotl-chat", tmp_path / "out")
    found = config(to / "axolotl.yaml", AXOLOTL)
    valid(found["datasets"][0], AXOLOTL_DATA)
    tokenizer, partial = lab_tokenizer(), 0
    rows = list(read_jsonl(to / "train.jsonl"))
    ours = rendered(prefixes)
    assert len(rows) == len(ours)
    for row, own in zip(rows, ours, strict=True):
        (turn,) = [m for m in row["messages"] if m["role"] == "assistant"]
        assert turn["train"] is True
        assert not any(m["train"] for m in row["messages"] if m is not turn)
        learnt = turn["content"]
        if turn["train_detail"]:
            partial += 1
            learnt = "".join(turn["content"][p["begin_offset"] : p["end_offset"] + 1]
                             for p in turn["train_detail"] if p["train"])  # fmt: skip
        text = tokenizer.decode([i for i in own["labels"] if i != -100], skip_special_tokens=True)
        assert text.strip() == learnt.strip()
    assert partial > 0


def test_flags_cover_every_character_once():
    turn = flagged_turn(reply(("One", "none"), ("", "none"), (" two.", "mle")))
    assert turn["train_detail"] == [
        {"begin_offset": 0, "end_offset": 2, "train": False},
        {"begin_offset": 3, "end_offset": 7, "train": True},
    ]
    assert flagged_turn(reply(("Yes.", "mle")))["train_detail"] == []
    assert flagged_turn(reply(("Yes.", "none")))["train"] is False


# --- LLaMA-Factory --------------------------------------------------------------------------------


def test_llamafactory_loads_the_rendered_rows(hard, tmp_path):
    datasets = pytest.importorskip("datasets")
    to = export(hard, "llamafactory", tmp_path / "out")
    found = config(to / "llamafactory.yaml", LLAMAFACTORY)
    assert found["template"] == "empty"
    loaded = datasets.load_from_disk(str(to / found["tokenized_path"]))
    for split in ("train", "validation"):
        rows = loaded[split].to_list()
        assert all(r.pop("attention_mask") == [1] * len(r["input_ids"]) for r in rows)
        assert rows == rendered(hard, split)


def test_sharegpt_rows_alternate_and_end_in_the_reply_they_teach(plain, tmp_path):
    to = export(plain, "llamafactory-sharegpt", tmp_path / "out")
    found = config(to / "llamafactory.yaml", LLAMAFACTORY)
    assert found["mask_history"] is True and "template" not in found
    described = read_json(to / found["dataset_dir"] / "dataset_info.json")[found["dataset"]]
    assert described["formatting"] == "sharegpt"
    columns, tags = described["columns"], described["tags"]
    rows = list(read_jsonl(to / described["file_name"]))
    assert len(rows) == 32
    for row in rows:
        turns = row[columns["messages"]]
        speakers = [turn[tags["role_tag"]] for turn in turns]
        assert speakers == [tags["user_tag"], tags["assistant_tag"]] * (len(turns) // 2)
        assert all(turn[tags["content_tag"]] for turn in turns)
        assert row[columns["system"]].startswith("Be brief.")
    assert len({json.dumps(row) for row in rows}) == 32


# --- OpenAI ---------------------------------------------------------------------------------------


def test_openai_rows_are_chat_messages(plain, tmp_path):
    to = export(plain, "openai", tmp_path / "out")
    rows = list(read_jsonl(to / "train.jsonl"))
    assert len(rows) == 24
    for row in rows:
        assert set(row) == {"messages"}
        assert row["messages"][0]["role"] == "system"
        assert row["messages"][-1]["role"] == "assistant"
        for turn in row["messages"]:
            assert set(turn) <= {"role", "content", "weight"} and turn["content"]
    job = read_json(to / "job.json")
    assert job["model"] and job["method"]["type"] == "supervised"
    assert job["method"]["supervised"]["hyperparameters"] == {"n_epochs": 1, "batch_size": 8}


# --- commands -------------------------------------------------------------------------------------


def test_the_recipe_names_exports_too(tmp_path):
    run = prepared(tmp_path, {**PLAIN, "export": ["openai"]})
    assert (run / "exports" / "openai" / "manifest.json").is_file()
    with pytest.raises(RecipeError, match="Did you mean 'trl'"):
        prepared(tmp_path, {**PLAIN, "export": ["trll"]})


def test_the_command_writes_where_it_is_told(plain, tmp_path, monkeypatch, capsys):
    import sys

    from holdfast.cli import main

    def holdfast(*words):
        monkeypatch.setattr(sys, "argv", ["holdfast", *words])
        with pytest.raises(SystemExit) as stop:
            main()
        return int(stop.value.code or 0), *capsys.readouterr()

    recipe = str(plain / "recipe.yaml")
    code, out, _ = holdfast("prepare", recipe, "--export", "trl", "--to", str(tmp_path / "here"))
    assert code == 0 and out.strip() == str(tmp_path / "here")
    assert (tmp_path / "here" / "data" / "train.jsonl").is_file()
    code, out, err = holdfast("prepare", recipe, "--to", str(tmp_path / "there"))
    assert (code, out) == (2, "") and "--export trl" in err
    code, out, _ = holdfast("list", "exports")
    assert code == 0 and "| `openai` | no | no | yes |" in out
